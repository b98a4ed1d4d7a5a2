-- 0008_prompts.sql: prompt templates of apps, and what was refused for its words.

-- A deleted template keeps its row with doc null, so that every dispatcher, which reads what changed since it last
-- looked, learns of it.
create table templates (
    app_id uuid not null references apps,
    name text not null check (name ~ '^[a-z0-9_.-]{1,64}$'),
    doc jsonb,
    updated_at timestamptz not null default clock_timestamp(),
    primary key (app_id, name)
);
create index templates_updated on templates (updated_at);

-- `limit_` living templates an app: false when this one would be one more.
create function kiln_template_put(app uuid, name_ text, doc_ jsonb, limit_ int) returns boolean
language plpgsql volatile as $$
begin
    perform 1 from apps where id = app for no key update; -- one at a time an app: the count holds
    if doc_ is not null and (select count(*) from templates t
                             where t.app_id = app and t.doc is not null and t.name <> name_) >= limit_ then
        return false;
    end if;
    insert into templates as t (app_id, name, doc) values (app, name_, doc_)
        on conflict (app_id, name) do update set doc = excluded.doc, updated_at = clock_timestamp();
    return true;
end $$;

-- Who was refused, where and why; never the prompt.
create table moderation_refusals (
    id bigint generated always as identity primary key,
    app_id uuid not null,
    account text not null,
    operation text not null,
    field text not null,
    source text not null check (source in ('terms', 'openai')),
    reason text not null,                                      -- the blocked term, or the service's categories
    created_at timestamptz not null default kiln_now()
);
create index moderation_refusals_app on moderation_refusals (app_id, id desc);
