-- 0013_looks.sql: what an image looks like from afar, for pages: its blurhash and dominant colour, kept with the artifact.
-- The functions that write and show artifacts get the two columns beside revised_prompt; each is taken as it stands, with
-- its settings (0007_plans.sql), and the migration stops when a place is not there.
alter table artifacts add column blurhash text, add column color text;

do $$
declare
    r record;
    def text;
begin
    for r in select * from (values
        ('kiln_settle', 'revised_prompt, created_at)', 'revised_prompt, blurhash, color, created_at)', 1),
        ('kiln_settle', 'x.revised_prompt, now_', 'x.revised_prompt, x.blurhash, x.color, now_', 1),
        ('kiln_settle', 'revised_prompt, charged, created_at)', 'revised_prompt, blurhash, color, charged, created_at)', 1),
        ('kiln_settle', 'x.revised_prompt, false, now_', 'x.revised_prompt, x.blurhash, x.color, false, now_', 1),
        ('kiln_settle', 'revised_prompt text)', 'revised_prompt text, blurhash text, color text)', 2),
        ('kiln_job_doc', '''revised_prompt'', a.revised_prompt,',
         '''revised_prompt'', a.revised_prompt, ''blurhash'', a.blurhash, ''color'', a.color,', 1))
        v(name, was, becomes, times)
    loop
        select pg_get_functiondef(p.oid) into strict def from pg_proc p
            where p.pronamespace = current_schema()::regnamespace and p.proname = r.name;
        if (length(def) - length(replace(def, r.was, ''))) / length(r.was) <> r.times then
            raise exception '% has another text than this migration expects: "%"', r.name, r.was;
        end if;
        execute replace(def, r.was, r.becomes);
    end loop;
end $$;
