-- finance: debtors and agreements. Its sync job is a replication origin, as a native subscription would be.
create schema fin;

create table fin.debtor (
    debtor_no     text primary key,
    debtor_name   text not null,
    contact_phone text,
    days_to_pay   integer,
    last_reminder date
);
alter table fin.debtor replica identity full;

create table fin.agreement (
    id           bigserial primary key,
    agreement_no text not null unique,
    subject      text not null,
    value        numeric(14,2) not null,
    open_amount  numeric(14,2) not null,
    signed_by    text,
    remark       text
);

create publication cdc_merge for table fin.debtor, fin.agreement;
-- Origins belong to the server, not to the database: it may be there already.
select pg_replication_origin_create('etl') where not exists (select from pg_replication_origin where roname = 'etl');
