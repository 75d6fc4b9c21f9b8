-- crm: the sales people's system. Business keys where customers are concerned, a surrogate id for orders; who changed a row
-- stands in the row itself (every application writes updated_by).
create table public.customer (
    customer_no  text primary key,
    name         text not null,
    mobile       text,
    points       integer not null default 0 check (points >= 0),
    tags         text,
    last_contact date,
    remark       text,
    updated_by   text
);

-- Found by its id, not by its business key: an order number can be corrected.
create table public.sales_order (
    id         bigserial primary key,
    order_no   text not null unique,
    status     text not null,
    amount     numeric(12,2) not null,
    promised   date,
    note       text,
    updated_by text
);
alter table public.sales_order alter column note set storage external;

create table public.contract (
    contract_no text primary key,
    title       text not null,
    amount      numeric(14,2) not null,
    balance     numeric(14,2) not null,
    parties     text,
    remark      text,
    updated_by  text
);

create publication cdc_merge for table public.customer, public.sales_order, public.contract;
