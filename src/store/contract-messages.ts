/** What every store does with messages, their deliveries, and what is dead of them. */
import assert from 'node:assert/strict';
import { newId } from '../ids.ts';
import { buildJob, ending, noon } from './contract-jobs.ts';
import type { Define } from './contract-rows.ts';
import type { JobStore, NewJob } from './jobs.ts';
import type { NewMessage } from './messages.ts';

const hour = 3_600_000;

export function buildMessage(changes: Partial<NewMessage> = {}): NewMessage {
  return {
    ...{ id: newId('msg', noon), topic: 'top_a', publishedMs: noon, keepUntilMs: noon },
    sealed: Uint8Array.of(9, 0, 255),
    ...changes,
  };
}

/** `runningMax` 0: it is pulled. */
export function buildDelivery(
  message: { id: string },
  changes: Partial<NewJob> & { laneId?: string; runningMax?: number } = {},
): NewJob {
  const { laneId = 'sub_a', runningMax = 100, ...rest } = changes;
  const { sealedInput: _, ...job } = buildJob({
    ...{ kind: 'delivery', functionId: laneId, message: message.id },
    lane: { id: laneId, runningMax, waitingMax: 1000 },
    ...rest,
  });
  return job;
}

const claim = async (jobs: JobStore, nowMs = noon, lane?: string) =>
  (await jobs.claim({ limit: 100, nowMs, leaseMs: 1000, ...(lane !== undefined && { lane }) }))
    .jobs;
const idsOf = (items: ReadonlyArray<{ id: string }>) => items.map(({ id }) => id);

export function messagesContract(define: Define): void {
  definePublishing(define);
  definePulling(define);
  defineHistory(define);
  defineLanes(define);
  defineDead(define);
  defineRedriving(define);
}

function definePublishing(define: Define): void {
  define('a message is there once for all its deliveries', async ({ jobs, messages }) => {
    const message = buildMessage();
    const [a, b] = [buildDelivery(message), buildDelivery(message, { laneId: 'sub_b' })];
    assert.equal(
      await messages.publish({ messages: [message], deliveries: [a, b] }, noon),
      'accepted',
    );
    const leased = await claim(jobs);
    assert.deepEqual(idsOf(leased).sort(), idsOf([a, b]).sort());
    for (const job of leased) {
      assert.deepEqual(job.sealedInput, message.sealed);
      assert.equal(job.message, message.id);
    }
    await jobs.settle([ending(leased[0]!)]);
    assert.equal((await messages.messages(all)).length, 1);
    assert.equal((await jobs.find(leased[0]!.id))?.message, undefined);
    await jobs.settle([ending(leased[1]!)]);
    assert.deepEqual(await messages.messages(all), []);
  });

  define('a publication is whole or nothing: a lane that is full refuses it', async store => {
    const { jobs, messages } = store;
    const lane = { id: 'sub_b', runningMax: 1, waitingMax: 1 };
    const [first, second] = [buildMessage(), buildMessage()];
    const deliveries = [first, second].flatMap(message => [
      buildDelivery(message),
      buildDelivery(message, { lane }),
    ]);
    assert.equal(await messages.publish({ messages: [first, second], deliveries }, noon), 'full');
    assert.deepEqual(await messages.messages(all), []);
    assert.deepEqual(await claim(jobs), []);
  });

  define('a message that is long is a blob, told when nobody needs it', async store => {
    const { jobs, messages } = store;
    const { sealed: _, ...rest } = buildMessage();
    const message = { ...rest, blob: 'sha256:ab' };
    await messages.publish({ messages: [message], deliveries: [buildDelivery(message)] }, noon);
    const [leased] = await claim(jobs);
    assert.equal(leased!.inputBlob, 'sha256:ab');
    assert.deepEqual(await jobs.blobs(), new Set(['sha256:ab']));
    await jobs.settle([ending(leased!)]);
    const ages = { endedBeforeMs: 0, deadBeforeMs: 0, limit: 10 };
    const swept = await jobs.sweep({ nowMs: noon, ...ages });
    assert.deepEqual([swept.blobs, swept.removed], [['sha256:ab'], 1]);
    assert.deepEqual(await jobs.blobs(), new Set());
  });

  define('what an end publishes is there with it', async ({ jobs }) => {
    await jobs.enqueue([buildJob()], noon);
    const [leased] = await claim(jobs);
    const copy = buildMessage({ topic: 'top_dead' });
    const next = [buildDelivery(copy, { laneId: 'sub_dead' })];
    await jobs.settle([ending(leased!, 'dead', { next, messages: [copy] })]);
    const [delivered] = await claim(jobs);
    assert.deepEqual(delivered!.sealedInput, copy.sealed);
  });
}

const all = { topic: 'top_a', sinceMs: 0, limit: 100 };

function definePulling(define: Define): void {
  define('a lane without room is claimed by its name only', async ({ jobs, messages }) => {
    const message = buildMessage();
    const delivery = buildDelivery(message, { laneId: 'sub_pull', runningMax: 0 });
    await messages.publish({ messages: [message], deliveries: [delivery] }, noon);
    assert.deepEqual(await claim(jobs), []);
    assert.deepEqual(await claim(jobs, noon, 'sub_none'), []);
    const [leased] = await claim(jobs, noon, 'sub_pull');
    assert.equal(leased!.id, delivery.id);
    assert.deepEqual(await claim(jobs, noon, 'sub_pull'), []);
    // Whoever pulled it is still there when a gateway is not.
    assert.equal(await jobs.recover(noon), 0);
    assert.deepEqual(await jobs.settle([ending(leased!)]), ['settled']);
  });

  define('what was pulled and not settled comes again', async ({ jobs, messages }) => {
    const message = buildMessage();
    const delivery = buildDelivery(message, { laneId: 'sub_pull', runningMax: 0 });
    await messages.publish({ messages: [message], deliveries: [delivery] }, noon);
    const [first] = await claim(jobs, noon, 'sub_pull');
    assert.deepEqual(await claim(jobs, noon + 999, 'sub_pull'), []);
    const [second] = await claim(jobs, noon + 1000, 'sub_pull');
    // Whoever held it has had its try: that is no gateway that was lost.
    const { id, attempts, lost, lease } = second!;
    assert.deepEqual([id, attempts, lost, lease], [first!.id, 1, 0, 2]);
    assert.deepEqual(await jobs.settle([ending(first!)]), ['lost']);
  });

  define('of one key, the second is pulled when the first is settled', async store => {
    const { jobs, messages } = store;
    const both = [buildMessage(), buildMessage()];
    const deliveries = both.map(message =>
      buildDelivery(message, { laneId: 'sub_pull', runningMax: 0, orderKey: 'k' }),
    );
    await messages.publish({ messages: both, deliveries }, noon);
    const [first, ...others] = await claim(jobs, noon, 'sub_pull');
    assert.deepEqual([first!.id, others], [deliveries[0]!.id, []]);
    await jobs.settle([ending(first!)]);
    assert.deepEqual(idsOf(await claim(jobs, noon, 'sub_pull')), [deliveries[1]!.id]);
  });
}

function defineHistory(define: Define): void {
  define('a message is kept as long as its topic says, and found by its time', async store => {
    const { jobs, messages } = store;
    const kept = [0, 1, 2].map(n =>
      buildMessage({ publishedMs: noon + n, keepUntilMs: noon + hour }),
    );
    const other = buildMessage({ topic: 'top_b', keepUntilMs: noon + hour });
    await messages.publish({ messages: [...kept, other], deliveries: [] }, noon);
    assert.deepEqual(await messages.messages(all), kept);
    assert.deepEqual(await messages.messages({ ...all, sinceMs: noon + 1 }), kept.slice(1));
    const page = { ...all, limit: 1, after: kept[0]! };
    assert.deepEqual(await messages.messages(page), [kept[1]]);
    const ages = { endedBeforeMs: 0, deadBeforeMs: 0, limit: 10 };
    assert.equal((await jobs.sweep({ nowMs: noon + hour - 1, ...ages })).removed, 0);
    assert.equal((await jobs.sweep({ nowMs: noon + hour, ...ages })).removed, 4);
    assert.deepEqual(await messages.messages(all), []);
  });

  define('seeking replaces what waits by what is asked for, in its order', async store => {
    const { jobs, messages } = store;
    const [old, running, waiting] = [0, 1, 2].map(n => buildMessage({ publishedMs: noon + n }));
    const keep = { keepUntilMs: noon + hour };
    const three = [{ ...old!, ...keep }, running!, waiting!];
    const deliveries = [buildDelivery(running!), buildDelivery(waiting!)];
    await messages.publish({ messages: three, deliveries: [deliveries[0]!] }, noon);
    const [leased] = await claim(jobs);
    await messages.publish({ messages: [], deliveries: [deliveries[1]!] }, noon);
    const again = three.map(message => buildDelivery(message, { orderKey: 'k' }));
    const gone = buildDelivery({ id: 'msg_none' });
    // The one that runs is left alone, and the one that waits has not lost its message on the way.
    const place = { lane: 'sub_a', sinceMs: noon, deliveries: [...again, gone] };
    assert.deepEqual(await messages.seek(place, noon), {
      ...{ dropped: 1, added: 2 },
    });
    const [first] = await claim(jobs);
    assert.deepEqual([first!.id, first!.sealedInput], [again[0]!.id, old!.sealed]);
    await jobs.settle([ending(first!), ending(leased!)]);
    assert.deepEqual(idsOf(await claim(jobs)), [again[2]!.id]);
  });

  define('what was published while a seek looked stays, behind what it brings', async store => {
    const { jobs, messages } = store;
    const [old, late, before] = [buildMessage(), buildMessage(), buildMessage()];
    const keep = { publishedMs: noon + 5, keepUntilMs: noon + hour };
    const key = { orderKey: 'k' };
    const waiting = buildDelivery(late, { ...key, acceptedMs: noon + 5 });
    const messagesOfAll = [{ ...old, ...keep }, { ...late, ...keep }, before];
    const deliveries = [buildDelivery(before, { acceptedMs: noon }), waiting];
    await messages.publish({ messages: messagesOfAll, deliveries }, noon);
    const again = buildDelivery(old, { ...key, acceptedMs: noon + 5 });
    const place = { lane: 'sub_a', sinceMs: noon + 5, deliveries: [again] };
    assert.deepEqual(await messages.seek(place, noon), { dropped: 1, added: 1 });
    const [first, ...none] = await claim(jobs);
    assert.deepEqual([first!.id, none], [again.id, []]);
    await jobs.settle([ending(first!)]);
    assert.deepEqual(idsOf(await claim(jobs)), [waiting.id]);
  });
}

function defineLanes(define: Define): void {
  define('a delivery says nothing of a lane’s room that somebody has said', async store => {
    const { jobs, messages } = store;
    const [one, two] = [buildMessage(), buildMessage()];
    await messages.publish({ messages: [one], deliveries: [buildDelivery(one)] }, noon);
    await jobs.setRoom([{ id: 'sub_a', runningMax: 0 }]);
    await messages.publish({ messages: [two], deliveries: [buildDelivery(two)] }, noon);
    assert.deepEqual(await claim(jobs), []);
    await jobs.setRoom([{ id: 'sub_a', runningMax: 9 }]);
    assert.equal((await claim(jobs)).length, 2);
  });

  define('what is held of a lane that is emptied goes too, where it was pulled', async store => {
    const { jobs, messages } = store;
    const message = buildMessage();
    const delivery = buildDelivery(message, { laneId: 'sub_pull', runningMax: 0 });
    await messages.publish({ messages: [message], deliveries: [delivery] }, noon);
    const [leased] = await claim(jobs, noon, 'sub_pull');
    assert.equal(await jobs.drop('sub_pull', { nowMs: noon, limit: 9 }), 1);
    assert.deepEqual(await jobs.settle([ending(leased!)]), ['lost']);
    assert.deepEqual(await messages.messages(all), []);
    assert.deepEqual(await jobs.counts(), []);
  });

  define('a lane that nobody serves any more is emptied', async ({ jobs, messages }) => {
    const [one, two] = [buildMessage(), buildMessage({ publishedMs: noon + 5 })];
    const deliveries = [
      buildDelivery(one, { orderKey: 'k' }),
      buildDelivery(two, { orderKey: 'k', acceptedMs: noon + 5 }),
    ];
    await messages.publish({ messages: [one, two], deliveries }, noon);
    assert.equal(await jobs.drop('sub_a', { nowMs: noon, limit: 1 }), 1);
    assert.deepEqual(idsOf(await messages.messages(all)), [two.id]);
    // What was behind it goes on.
    assert.deepEqual(idsOf(await claim(jobs)), [deliveries[1]!.id]);
    assert.equal(await jobs.drop('sub_a', { nowMs: noon, limit: 9 }), 0);
    assert.equal(await jobs.drop('sub_none', { nowMs: noon, limit: 9 }), 0);
  });
}

async function dieAs(
  store: { jobs: JobStore },
  cause: string | undefined,
  count = 1,
): Promise<string[]> {
  const { jobs } = store;
  const leased = (await claim(jobs)).slice(0, count);
  await jobs.settle(
    leased.map(lease =>
      ending(lease, 'dead', {
        outcome: { kind: 'end', state: 'dead', keepsInput: true, ...(cause && { cause }) },
      }),
    ),
  );
  return idsOf(leased);
}

function defineDead(define: Define): void {
  define('what is dead is counted by cause, listed by it, and purged', async store => {
    const { jobs, messages } = store;
    const three = [buildMessage(), buildMessage(), buildMessage()];
    const deliver = (message: NewMessage) =>
      messages.publish({ messages: [message], deliveries: [buildDelivery(message)] }, noon);
    await deliver(three[0]!);
    const [one] = await dieAs(store, 'threw TypeError');
    await deliver(three[1]!);
    const [two] = await dieAs(store, undefined);
    await deliver(three[2]!);
    const [three_] = await dieAs(store, 'threw TypeError');
    const facts = { lane: 'sub_a', kind: 'delivery', firstMs: noon + 5, lastMs: noon + 5 };
    assert.deepEqual(await jobs.dead('default'), [
      { ...facts, cause: '', count: 1 },
      { ...facts, cause: 'threw TypeError', count: 2 },
    ]);
    assert.deepEqual(await jobs.dead('team'), []);
    const dead = { namespace: 'default', state: 'dead', limit: 9 } as const;
    assert.deepEqual(idsOf(await jobs.list({ ...dead, cause: '' })), [two]);
    const lanes = ['sub_a', 'sub_b'];
    const listed = await jobs.list({ ...dead, lanes, cause: 'threw TypeError' });
    assert.deepEqual(idsOf(listed).sort(), [one, three_].sort());
    assert.equal((await jobs.find(one!))?.cause, 'threw TypeError');
    const options = { nowMs: noon, limit: 9 };
    const purge = (query: object) => jobs.purge({ namespace: 'default', ...query }, options);
    assert.equal((await purge({ lanes: ['sub_b'] })).removed, 0);
    assert.equal((await purge({ id: one! })).removed, 1);
    assert.equal((await purge({ cause: '' })).removed, 1);
    assert.equal(await jobs.find(two!), undefined);
    assert.equal((await messages.messages(all)).length, 1);
    assert.equal((await purge({})).removed, 1);
    assert.deepEqual(await messages.messages(all), []);
  });
}

function defineRedriving(define: Define): void {
  define('what is dead is redriven once, with what it came with', async store => {
    const { jobs, messages } = store;
    const message = buildMessage();
    await messages.publish({ messages: [message], deliveries: [buildDelivery(message)] }, noon);
    const [dead] = await dieAs(store, 'threw');
    const again = buildDelivery(message, { redrives: dead!, parent: dead! });
    assert.deepEqual(await jobs.enqueue([again], noon), ['accepted']);
    assert.equal((await jobs.find(dead!))?.redriven, again.id);
    assert.deepEqual(await jobs.dead('default'), []);
    const open = { namespace: 'default', state: 'dead', isOpen: true, limit: 9 } as const;
    assert.deepEqual(await jobs.list(open), []);
    const [leased] = await claim(jobs);
    assert.deepEqual([leased!.id, leased!.sealedInput], [again.id, message.sealed]);
    // While it runs it is the same delivery; afterwards there is nothing to redrive any more.
    const twice = () => jobs.enqueue([buildDelivery(message, { redrives: dead! })], noon);
    assert.deepEqual(await twice(), [{ first: again.id }]);
    await jobs.settle([ending(leased!)]);
    assert.deepEqual(await twice(), ['gone']);
    assert.deepEqual(await jobs.enqueue([buildJob({ redrives: 'inv_none' })], noon), ['gone']);
    assert.deepEqual(await jobs.enqueue([buildJob({ redrives: again.id })], noon), ['gone']);
  });
}
