/** Goal: what is scraped is what happened. Method: a few events, then the text. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Metrics } from './metrics.ts';

test('calls are counted by function, status and reason', () => {
  const metrics = new Metrics();
  for (const status of [200, 200, 502]) {
    metrics.ended(metrics.started('default', 'f'), status, 3, status === 502 ? 'threw' : undefined);
  }
  metrics.started('default', 'f');
  const text = metrics.text();
  const labels = 'namespace="default",function="f"';
  assert.ok(text.includes(`fnway_calls_total{${labels},status="200"} 2\n`));
  assert.ok(text.includes(`fnway_calls_total{${labels},status="502"} 1\n`));
  assert.ok(text.includes(`fnway_call_failures_total{${labels},reason="threw"} 1\n`));
  assert.ok(text.includes(`fnway_calls_in_flight{${labels}} 1\n`));
});

test('a histogram is cumulative, its bounds included, and ends at the total', () => {
  const metrics = new Metrics();
  metrics.started('default', 'f');
  for (const ms of [0, 1, 1.01, 60_000, 60_001]) metrics.waited('default', 'f', ms);
  const buckets = [...metrics.text().matchAll(/queue_wait_seconds_bucket\{.*le="(.*)"\} (\d+)/g)];
  const counts = Object.fromEntries(buckets.map(([, bound, count]) => [bound, Number(count)]));
  assert.equal(counts['0.001'], 2);
  assert.equal(counts['0.0025'], 3);
  assert.equal(counts['60'], 4);
  assert.equal(counts['+Inf'], 5);
});

test('a removed function leaves no series, though a call in it ends later', () => {
  const metrics = new Metrics();
  const series = metrics.started('default', 'f');
  metrics.remove('default', 'f');
  metrics.ended(series, 200, 1, undefined);
  assert.ok(!metrics.text().includes('function="f"'), metrics.text());
});

test('a gauge is asked when somebody scrapes, and its labels are escaped', () => {
  const metrics = new Metrics();
  let value = 1;
  metrics.gauge('fnway_x', 'Help.', () => [{ labels: { a: 'q"\\\n' }, value }]);
  value = 2;
  assert.ok(metrics.text().includes('fnway_x{a="q\\"\\\\\\n"} 2\n'));
});

test('every line is a comment or a sample', () => {
  const metrics = new Metrics();
  metrics.ended(metrics.started('default', 'f'), 200, 1, undefined);
  metrics.refused('UNAUTHENTICATED');
  for (const line of metrics.text().trimEnd().split('\n'))
    assert.match(line, /^# (?:HELP|TYPE) \w+ .+$|^\w+(?:\{[^}]*\})? [0-9.e+-]+$/);
});
