/**
 * Goal: what is posted to a webhook becomes one call, when it comes from who it says and is new; nobody else learns anything.
 * Method: a real gateway over HTTP; requests are signed here as each sender's documents say, by code of this file.
 */
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { describe, test } from 'node:test';
import type { WebhookDefinition } from '../../client/api.ts';
import { javascript, startTestGateway } from '../../src/testing/test-gateway.ts';
import { waitFor } from '../../src/testing/wait-for.ts';

const gateway = await startTestGateway({ shared: true });
const { client } = gateway;
const webhooks = client.resources('webhooks');
const secret = 'a secret of the sender';
await client.putSecret('HOOK', secret);
const standardKey = Buffer.from('0123456789abcdef0123456789abcdef').toString('base64');
await client.putSecret('STANDARD', `whsec_${standardKey}`);
await gateway.put(
  'mirror',
  javascript(`export default async request => Response.json({ path: new URL(request.url).pathname,
    body: await request.text(), headers: Object.fromEntries(request.headers) });`),
);

const body = '{"id":"evt_1","n":"ü"}';
const hmac = (
  text: string,
  {
    algorithm = 'sha256',
    encoding = 'hex' as 'hex' | 'base64',
    key = secret as string | Buffer,
  } = {},
) => createHmac(algorithm, key).update(text).digest(encoding);
const seconds = (ago = 0) => String(Math.floor(Date.now() / 1000) - ago);

/** How each kind signs a body at a time. */
const senders: Record<
  string,
  { verify: object; sign(text: string, at: string): Record<string, string>; hasTime: boolean }
> = {
  github: {
    verify: { kind: 'github', secret: 'HOOK' },
    sign: text => ({ 'x-hub-signature-256': `sha256=${hmac(text)}` }),
    hasTime: false,
  },
  stripe: {
    verify: { kind: 'stripe', secret: 'HOOK' },
    sign: (text, at) => ({
      'stripe-signature': `t=${at},v1=${'0'.repeat(64)},v1=${hmac(`${at}.${text}`)}`,
    }),
    hasTime: true,
  },
  slack: {
    verify: { kind: 'slack', secret: 'HOOK' },
    sign: (text, at) => ({
      'x-slack-request-timestamp': at,
      'x-slack-signature': `v0=${hmac(`v0:${at}:${text}`)}`,
    }),
    hasTime: true,
  },
  standard: {
    verify: { kind: 'standard', secret: 'STANDARD' },
    sign: (text, at) => ({
      ...{ 'webhook-id': 'msg_1', 'webhook-timestamp': at },
      'webhook-signature': `v1,${hmac(`msg_1.${at}.${text}`, { encoding: 'base64', key: Buffer.from(standardKey, 'base64') })}`,
    }),
    hasTime: true,
  },
  hmac: {
    verify: {
      kind: 'hmac',
      secret: 'HOOK',
      header: 'X-Mine',
      algorithm: 'sha512',
      encoding: 'base64',
      prefix: 'v=',
    },
    sign: text => ({ 'x-mine': `v=${hmac(text, { algorithm: 'sha512', encoding: 'base64' })}` }),
    hasTime: false,
  },
  'hmac-timed': {
    verify: { kind: 'hmac', secret: 'HOOK', header: 'x-mine', timestampHeader: 'x-at' },
    sign: (text, at) => ({ 'x-at': at, 'x-mine': hmac(`${at}.${text}`) }),
    hasTime: true,
  },
  token: {
    verify: { kind: 'token', secret: 'HOOK', header: 'X-Gitlab-Token' },
    sign: () => ({ 'x-gitlab-token': secret }),
    hasTime: false,
  },
  bearer: {
    verify: { kind: 'token', secret: 'HOOK' },
    sign: () => ({ authorization: `Bearer ${secret}` }),
    hasTime: false,
  },
};

const post = (path: string, headers: Record<string, string>, text = body) =>
  gateway.call(path, { method: 'POST', headers, body: text });

async function accepted(response: Response): Promise<string> {
  assert.equal(response.status, 202, await response.clone().text());
  return ((await response.json()) as { id: string }).id;
}

interface Seen {
  path: string;
  body: string;
  headers: Record<string, string>;
}
async function seenBy(id: string): Promise<Seen> {
  return (await (await client.getResult(id, { wait: '20s' })).json()) as Seen;
}

describe('a webhook', () => {
  for (const [kind, { verify, sign, hasTime }] of Object.entries(senders)) {
    test(`of kind ${kind} takes what is signed, byte for byte, and nothing else`, async () => {
      const { resource } = await webhooks.put(kind, { function: 'mirror', verify });
      assert.equal(resource.path, `/webhook/${kind}`);
      const at = seconds();
      const response = await post(`/webhook/${kind}/sub?x=1`, {
        ...sign(body, at),
        'x-other': 'kept',
      });
      const id = await accepted(response);
      const seen = await seenBy(id);
      assert.deepEqual([seen.path, seen.body, seen.headers['x-other']], ['/sub', body, 'kept']);
      for (const value of Object.values(seen.headers)) assert.ok(!value.includes(secret), value);
      const view = await client.getInvocation(id);
      assert.deepEqual([view.origin, view.caller, view.trigger], ['webhook', 'trigger', kind]);
      const wrong: Array<Record<string, string>> = [
        {},
        Object.fromEntries(
          Object.entries(sign(body, at)).map(([name, value]) => [name, `${value}0`]),
        ),
      ];
      if (kind !== 'token' && kind !== 'bearer') wrong.push(sign(`${body} `, at));
      for (const headers of wrong) {
        const refused = await post(`/webhook/${kind}`, headers);
        assert.equal(refused.status, 401, JSON.stringify(headers));
        assert.match(await refused.text(), /missing or wrong, or there is no such webhook/);
      }
      if (!hasTime) return;
      for (const ago of [400, -400]) {
        const late = await post(`/webhook/${kind}`, sign(body, seconds(ago)));
        assert.equal(late.status, 401);
        assert.match(await late.text(), /too old, or from the future/);
      }
    });
  }

  test('that is not there answers as one whose signature is wrong', async () => {
    await webhooks.put('there', { function: 'mirror', verify: senders.github!.verify });
    const [missing, wrong] = await Promise.all([
      post('/webhook/nowhere', {}),
      post('/webhook/there', {}),
    ]);
    const told = async (response: Response) => {
      const { requestId: _, ...rest } = (await response.json()) as Record<string, unknown>;
      return { status: response.status, ...rest };
    };
    assert.deepEqual(await told(missing), await told(wrong));
    for (const path of ['/webhook/nowhere', '/webhook/there'])
      assert.equal((await gateway.call(path)).status, 405);
  });

  test('makes one call of an event that is sent again', async () => {
    await webhooks.put('twice', { function: 'mirror', verify: senders.github!.verify });
    const headers = { ...senders.github!.sign(body, ''), 'x-github-delivery': 'delivery-1' };
    const first = await accepted(await post('/webhook/twice', headers));
    assert.equal(await accepted(await post('/webhook/twice', headers)), first);
    const other = { ...headers, 'x-github-delivery': 'delivery-2' };
    assert.notEqual(await accepted(await post('/webhook/twice', other)), first);
    await webhooks.put('stripe-twice', { function: 'mirror', verify: senders.stripe!.verify });
    const sign = () => post('/webhook/stripe-twice', senders.stripe!.sign(body, seconds()));
    assert.equal(await accepted(await sign()), await accepted(await sign()));
  });

  test('of kind standard whose secret is no base64 takes nothing', async () => {
    await client.putSecret('NO_KEY', '!!!!');
    const rule = { kind: 'standard', secret: 'NO_KEY' };
    await webhooks.put('no-key', { function: 'mirror', verify: rule });
    const at = seconds();
    const signature = hmac(`m.${at}.${body}`, { encoding: 'base64', key: Buffer.alloc(0) });
    const headers = {
      ...{ 'webhook-id': 'm', 'webhook-timestamp': at },
      'webhook-signature': `v1,${signature}`,
    };
    assert.equal((await post('/webhook/no-key', headers)).status, 401);
  });

  test('answers the challenge of Slack, once it is signed', async () => {
    await webhooks.put('challenged', { function: 'mirror', verify: senders.slack!.verify });
    const text = JSON.stringify({ type: 'url_verification', challenge: 'abc123' });
    const response = await post('/webhook/challenged', senders.slack!.sign(text, seconds()), text);
    assert.deepEqual([response.status, await response.text()], [200, 'abc123']);
    assert.equal((await post('/webhook/challenged', {}, text)).status, 401);
  });

  test('that is paused is tried again later by its sender', async () => {
    await webhooks.put('paused', { function: 'mirror', verify: senders.github!.verify });
    await webhooks.pause('paused');
    const headers = senders.github!.sign(body, '');
    const response = await post('/webhook/paused', headers);
    assert.equal(response.status, 503);
    assert.equal(response.headers.get('retry-after'), '60');
    assert.match(await response.text(), /WEBHOOK_PAUSED/);
    assert.equal((await post('/webhook/paused', {})).status, 401);
    await webhooks.resume('paused');
    await accepted(await post('/webhook/paused', headers));
  });

  test('knows a new secret at once, and its secret stays while it does', async () => {
    await client.putSecret('ROTATED', 'the first');
    await webhooks.put('rotated', {
      function: 'mirror',
      verify: { kind: 'github', secret: 'ROTATED' },
    });
    const sign = (key: string) => ({ 'x-hub-signature-256': `sha256=${hmac(body, { key })}` });
    await accepted(await post('/webhook/rotated', sign('the first')));
    await client.putSecret('ROTATED', 'the second');
    assert.equal((await post('/webhook/rotated', sign('the first'))).status, 401);
    await accepted(await post('/webhook/rotated', sign('the second')));
    await assert.rejects(client.removeSecret('ROTATED'), {
      code: 'RESOURCE_IN_USE',
      message: /secret ROTATED is used by webhook rotated/,
    });
    await accepted(await post('/webhook/rotated', sign('the second')));
    await webhooks.remove('rotated');
    await client.removeSecret('ROTATED');
  });

  test('refuses what the function’s schema does, and takes bodies of any kind', async () => {
    await gateway.put(
      'strict',
      javascript('export default () => new Response();', {
        schema: { in: { type: 'object', required: ['n'] } },
      }),
    );
    await webhooks.put('strict', { function: 'strict', verify: { kind: 'none' } });
    assert.equal((await post('/webhook/strict', {}, '{}')).status, 422);
    await webhooks.put('open', { function: 'mirror', verify: { kind: 'none' } });
    const seen = await seenBy(
      await accepted(await post('/webhook/open', { 'content-type': 'text/xml' }, '<a/>')),
    );
    assert.deepEqual([seen.body, seen.headers['content-type']], ['<a/>', 'text/xml']);
  });

  test('of another namespace is behind a dot', async () => {
    const team = client.inNamespace('team');
    await team.putFunction(
      'mirror',
      { ...javascript('export default () => new Response("team");'), auth: 'none' },
      { wait: '30s' },
    );
    const { resource } = await team
      .resources('webhooks')
      .put('hook', { function: 'mirror', verify: { kind: 'none' } });
    assert.equal(resource.path, '/webhook/hook.team');
    const id = await accepted(await post('/webhook/hook.team', {}));
    assert.equal(await (await team.getResult(id, { wait: '20s' })).text(), 'team');
  });
});

describe('a webhook of Alertmanager', () => {
  const alert = (name: string, changes: object = {}) => ({
    status: 'firing',
    labels: { alertname: name, instance: 'node-1', severity: 'page' },
    annotations: { summary: `${name} is down` },
    startsAt: '2026-01-31T12:00:00Z',
    endsAt: '0001-01-01T00:00:00Z',
    generatorURL: 'http://prometheus/graph',
    fingerprint: `fp-${name}`,
    ...changes,
  });
  const verify = { kind: 'token', secret: 'HOOK' };
  const send = async (name: string, payload: unknown) => {
    const headers = { authorization: `Bearer ${secret}`, 'content-type': 'application/json' };
    const response = await post(`/webhook/${name}`, headers, JSON.stringify(payload));
    assert.equal(response.status, 202, await response.clone().text());
    return (await response.json()) as { invocations: string[]; ignored: number };
  };

  test('calls once for each alert, with its fields in the parameters', async () => {
    await webhooks.put('alerts', {
      ...{ function: 'mirror', verify },
      alerts: {
        match: { severity: ['page', 'ticket'] },
        parameters: {
          node: '{{ labels.instance }}',
          text: '{{annotations.summary}} ({{ status }})',
          none: '{{ labels.absent }}',
          fixed: 'x',
        },
      },
    });
    const payload = {
      version: '4',
      alerts: [
        alert('disk'),
        alert('cpu'),
        alert('over', { status: 'resolved' }),
        alert('minor', { labels: { severity: 'info' } }),
      ],
    };
    const { invocations, ignored } = await send('alerts', payload);
    assert.deepEqual([invocations.length, ignored], [2, 2]);
    const seen = await seenBy(invocations[0]!);
    assert.deepEqual(JSON.parse(seen.body), {
      node: 'node-1',
      text: 'disk is down (firing)',
      none: '',
      fixed: 'x',
    });
    assert.equal(seen.headers['x-fnway-alert'], 'fp-disk');
    // Alertmanager repeats what goes on: the same alert is the same call.
    assert.deepEqual((await send('alerts', payload)).invocations, invocations);
    // It was over meanwhile: Alertmanager tells the new start of one that fires again.
    const again = { alerts: [alert('disk', { startsAt: '2026-01-31T12:30:00Z' })] };
    const [anew] = (await send('alerts', again)).invocations;
    assert.ok(!invocations.includes(anew!));
  });

  test('takes the list that Prometheus pushes, without fingerprints', async () => {
    await webhooks.put('pushed', { function: 'mirror', verify, alerts: { status: 'all' } });
    const { fingerprint: _, status: __, ...plain } = alert('disk');
    const [firing] = (await send('pushed', [plain])).invocations;
    const seen = JSON.parse((await seenBy(firing!)).body) as Record<string, unknown>;
    assert.deepEqual([seen.status, seen.labels], ['firing', plain.labels]);
    const [resolved] = (await send('pushed', [{ ...plain, endsAt: '2026-02-01T00:00:00Z' }]))
      .invocations;
    assert.notEqual(resolved, firing);
    assert.deepEqual((await send('pushed', [plain])).invocations, [firing]);
  });

  test('makes no header of what an alert says', async () => {
    await webhooks.put('forged', { function: 'mirror', verify, alerts: {} });
    for (const fingerprint of [
      'f\u0100X-Fnway-Schedule\u0100nightly',
      'a\0b',
      'x'.repeat(100_000),
    ]) {
      const labels = { a: fingerprint.slice(0, 9) };
      const [id] = (await send('forged', [alert('disk', { fingerprint, labels })])).invocations;
      const { headers } = await seenBy(id!);
      assert.match(headers['x-fnway-alert']!, /^[0-9a-f]{16}$/);
      assert.equal(headers['x-fnway-schedule'], undefined);
    }
  });

  test('calls again when the window is over', async () => {
    await webhooks.put('brief', { function: 'mirror', verify, alerts: { window: '1ms' } });
    const [first] = (await send('brief', [alert('disk')])).invocations;
    await waitFor(async () => (await send('brief', [alert('disk')])).invocations[0] !== first, {
      what: 'another call',
    });
  });

  test('refuses what are no alerts', async () => {
    await webhooks.put('alerts-only', { function: 'mirror', verify, alerts: {} });
    const headers = { authorization: `Bearer ${secret}` };
    for (const [text, status] of [
      ['{', 400],
      ['{"alerts":[{"labels":1}]}', 422],
      ['"x"', 422],
    ] as const)
      assert.equal((await post('/webhook/alerts-only', headers, text)).status, status, text);
  });
});

describe('what is no webhook is refused', () => {
  const whole = { function: 'mirror', verify: { kind: 'github', secret: 'HOOK' } };
  for (const [changes, detail] of [
    [{ function: 'nobody' }, /function: there is no function nobody/],
    [{ verify: undefined }, /verify/],
    [{ verify: { kind: 'gitlab' } }, /verify\.kind: say `kind`/],
    [{ verify: { kind: 'github' } }, /verify\.secret/],
    [{ verify: { kind: 'github', secret: 'NOPE' } }, /verify\.secret: there is no secret NOPE/],
    [{ verify: { kind: 'hmac', secret: 'HOOK' } }, /verify\.header/],
    [{ verify: { kind: 'stripe', secret: 'HOOK', window: '2h' } }, /verify\.window: from 1s to 1h/],
    [
      { alerts: { parameters: { a: '{{ labels }}' } } },
      /alerts\.parameters\.a: "labels" is no field/,
    ],
    [{ alerts: { window: '2d' } }, /alerts\.window: at most 1d/],
    [{ alerts: { match: { a: { near: 1 } } } }, /alerts\.match\.a/],
  ] as Array<[Partial<WebhookDefinition> | object, RegExp]>)
    test(JSON.stringify(changes), async () => {
      await assert.rejects(webhooks.put('refused', { ...whole, ...changes }), (error: Error) => {
        assert.equal((error as Error & { code: string }).code, 'DEFINITION_INVALID');
        assert.match(error.message, detail);
        return true;
      });
    });
});
