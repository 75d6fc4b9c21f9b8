-- erp: the back office. Partners have a surrogate id, orders their number; who changed a row is said by a logical message.
create schema erp;

create table erp.partner (
    id           bigserial primary key,
    code         text not null unique,
    partner_name text not null,
    tel          text,
    bonus        integer not null default 0 check (bonus >= 0),
    labels       text,
    last_seen    date,
    payment_days integer,
    memo         text
);

create table erp.order_head (
    order_no text primary key,
    state    text not null,
    total    numeric(12,2) not null,
    due      date,
    body     text
);
alter table erp.order_head alter column body set storage external;
alter table erp.order_head replica identity full;

create publication cdc_merge for table erp.partner, erp.order_head;
