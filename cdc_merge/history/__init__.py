"""3: Change → history: order by stamp, repeats dropped by place, late changes in their place. Pure."""
