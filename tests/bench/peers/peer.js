// peer.js - other queues at the work that scripts/bench peers gives kiln, one program a role. Prints NAME=NUMBER.
//
//   node peer.js PEER setup               makes what the peer keeps in PostgreSQL or Redis, and the rows of the money
//   node peer.js PEER one SECONDS         enqueues job by job, 64 at once: rate
//   node peer.js PEER many CALLS          enqueues a thousand a call, one call after the other, as many before that are not counted: rate
//   node peer.js PEER fill COUNT          enqueues COUNT jobs
//   node peer.js PEER work COUNT          takes COUNT jobs through, thousands: began and ended (ms), cpu (s), rss (KiB)
//
// PEER: bee-queue, graphile-worker, pg-boss. A job is a POST to PEER_CALL_URL, its answer read whole, and one statement of
// four rows: a result, two of the ledger, a balance. The answer is neither hashed nor stored. Each queue is set up for
// throughput as its manual says; what that costs in safety is theirs.
'use strict';
const http = require('http');
const { Pool } = require('pg');

const OPEN = Number(process.env.PEER_OPEN || 10000); // jobs at once
const CONNECTIONS = 10; // 32 and 64 were slower for each of them
const ACCOUNTS = 1000; // so that statements seldom wait for one row
const DATABASE = {
    host: process.env.PEER_PG_HOST,
    port: Number(process.env.PEER_PG_PORT),
    user: process.env.PEER_PG_USER,
    database: process.env.PEER_PG_DATABASE,
};
const JOB = { prompt: 'a lighthouse at dusk, long exposure, storm clouds over the sea', num_images: 1, width: 1024, height: 768 };
const say = (values) => console.log(Object.entries(values).map(([name, value]) => `${name}=${value}`).join(' '));
const a_thousand = (make) => Array.from({ length: 1000 }, (_, i) => make(i));

// --- the money

async function makeMoney() {
    const pool = new Pool(DATABASE);
    await pool.query(`create table if not exists peer_results (job bigint primary key, account int not null, url text not null,
                          bytes int not null, at timestamptz not null default now());
                      create table if not exists peer_ledger (id bigint generated always as identity primary key,
                          account int not null, job bigint not null, kind text not null, amount bigint not null,
                          at timestamptz not null default now(), unique (job, kind));
                      create table if not exists peer_accounts (id int primary key, balance bigint not null) with (fillfactor = 50)`);
    await pool.query(`insert into peer_accounts select i, 1000000000 from generate_series(0, ${ACCOUNTS - 1}) i on conflict do nothing`);
    await pool.end();
}
const SETTLE = {
    name: 'settle',
    text: `with r as (insert into peer_results (job, account, url, bytes) values ($1, $2, $3, $4)),
                l as (insert into peer_ledger (account, job, kind, amount) values ($2, $1, 'capture', 900), ($2, $1, 'release', 100))
           update peer_accounts set balance = balance - 900 where id = $2`,
};

// One POST, its answer read whole; how long that is.
function call(options, body) {
    return new Promise((resolve, reject) => {
        const request = http.request(options, (answer) => {
            const parts = [];
            answer.on('data', (part) => parts.push(part));
            answer.on('end', () => (answer.statusCode === 200 ? resolve(Buffer.concat(parts).length) : reject(new Error(`status ${answer.statusCode}`))));
            answer.on('error', reject);
        });
        request.on('error', reject);
        request.end(body);
    });
}

// What a job does. Resolves all() once `count` jobs were settled.
function work(count) {
    const { hostname, port, pathname } = new URL(process.env.PEER_CALL_URL);
    const agent = new http.Agent({ keepAlive: true, maxSockets: OPEN }); // undici was slower for bee-queue
    const pool = new Pool({ ...DATABASE, max: CONNECTIONS });
    const body = JSON.stringify(JOB);
    const headers = { 'content-type': 'application/json', authorization: 'bench', 'content-length': Buffer.byteLength(body) };
    const options = { hostname, port, path: pathname, method: 'POST', agent, headers };
    let done = 0, finish;
    const all = new Promise((resolve) => { finish = resolve; });
    const settle = async (n) => {
        const bytes = await call(options, body);
        await pool.query({ ...SETTLE, values: [n, n % ACCOUNTS, `/v1/artifacts/${n}`, bytes] });
        if (++done === count) finish();
    };
    const run = (n) => settle(n).catch((error) => { // a queue would try again, and nobody would know
        console.error(error);
        process.exit(1);
    });
    return { run, all };
}

// --- the peers: each enqueues one (number), a thousand (their first number), and works

const peers = {
    'bee-queue': async () => {
        const Queue = require('bee-queue');
        const settings = { redis: { path: process.env.PEER_REDIS_PATH }, getEvents: false, sendEvents: false, storeJobs: false, removeOnSuccess: true };
        return {
            open: async (works) => {
                const queue = new Queue('bench', { ...settings, isWorker: works });
                await queue.ready();
                return {
                    one: (n) => queue.createJob({ ...JOB, n }).save(),
                    many: async (n) => {
                        const refused = await queue.saveAll(a_thousand((i) => queue.createJob({ ...JOB, n: n + i })));
                        if (refused.size > 0) throw refused.values().next().value;
                    },
                    work: async (run) => queue.process(OPEN, (job) => run(job.data.n)),
                };
            },
        };
    },
    'graphile-worker': async () => {
        const { makeWorkerUtils, run: start, Logger } = require('graphile-worker');
        const quiet = new Logger(() => () => {}); // its advice, a local queue as long as the concurrency, was a fifth slower
        return {
            setup: async () => {
                const utils = await makeWorkerUtils({ pgPool: new Pool(DATABASE), logger: quiet });
                await utils.migrate();
            },
            open: async () => {
                const pool = new Pool({ ...DATABASE, max: CONNECTIONS });
                pool.on('error', (error) => console.error(error.message));
                const utils = await makeWorkerUtils({ pgPool: pool, logger: quiet });
                return {
                    one: (n) => utils.addJob('bench', { ...JOB, n }),
                    many: (n) => utils.addJobs(a_thousand((i) => ({ identifier: 'bench', payload: { ...JOB, n: n + i } }))),
                    work: (run) => start({
                        pgPool: pool, logger: quiet, noHandleSignals: true,
                        taskList: { bench: (payload) => run(payload.n) },
                        preset: { worker: { concurrentJobs: OPEN, localQueue: { size: 1000 }, completeJobBatchDelay: 50, failJobBatchDelay: 50 } },
                    }),
                };
            },
        };
    },
    'pg-boss': async () => {
        const PgBoss = require('pg-boss');
        const open = async () => {
            const boss = new PgBoss({ ...DATABASE, max: CONNECTIONS, supervise: false, schedule: false, noSupervisor: true, noScheduling: true });
            boss.on('error', (error) => console.error(error.message));
            await boss.start();
            return boss;
        };
        return {
            setup: async () => (await open()).stop({ graceful: false }),
            open: async () => {
                const boss = await open();
                return {
                    one: (n) => boss.send('bench', { ...JOB, n }),
                    many: (n) => boss.insert(a_thousand((i) => ({ name: 'bench', data: { ...JOB, n: n + i } }))),
                    work: async (run) => { // a thousand are fetched by one statement, and completed by one when all are done
                        for (let open = 0; open < OPEN; open += 1000) {
                            await boss.work('bench', { batchSize: 1000, newJobCheckInterval: 100 },
                                (jobs) => Promise.all(jobs.map((job) => run(job.data.n))));
                        }
                    },
                };
            },
        };
    },
};

// --- roles

async function one(queue, seconds) {
    let counted = 0;
    const until = performance.now() + 1000 * (1 + seconds), from = until - 1000 * seconds; // the first second warms up
    let n = 0;
    await Promise.all(Array.from({ length: 64 }, async () => {
        for (let at = performance.now(); at < until;) {
            await queue.one(n++);
            const now = performance.now();
            if (now >= from && now < until) counted++;
            at = now;
        }
    }));
    say({ rate: Math.round(counted / seconds) });
}

async function many(queue, calls) {
    for (let i = 0; i < calls; i++) await queue.many(1000 * i); // warms up
    const from = performance.now();
    for (let i = calls; i < 2 * calls; i++) await queue.many(1000 * i);
    say({ rate: Math.round(1000 * calls / ((performance.now() - from) / 1000)) });
}

async function workOff(queue, count) {
    const { run, all } = work(count);
    const began = Date.now();
    await queue.work(run);
    await all;
    const ended = Date.now(), cpu = process.cpuUsage();
    say({ began, ended, cpu: ((cpu.user + cpu.system) / 1e6).toFixed(3), rss: process.resourceUsage().maxRSS });
}

async function main([name, role, number]) {
    const peer = await peers[name]();
    if (role === 'setup') {
        await makeMoney();
        if (peer.setup) await peer.setup();
        return;
    }
    const queue = await peer.open(role === 'work');
    if (role === 'one') await one(queue, Number(number));
    else if (role === 'many') await many(queue, Number(number));
    else if (role === 'fill') for (let i = 0; i < Number(number); i += 1000) await queue.many(i);
    else if (role === 'work') await workOff(queue, Number(number));
    else throw new Error(`there is no role ${role}`);
}
main(process.argv.slice(2)).then(() => process.exit(0), (error) => {
    console.error(error);
    process.exit(1);
});
