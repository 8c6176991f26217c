/** Goal: settings are read from flag, environment and default in this order, and nonsense stops the start. Method: tables. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseConfig } from './config.ts';

test('a flag beats the environment, which beats the default', () => {
  assert.equal(parseConfig({}, {}).port, 8080);
  assert.equal(parseConfig({}, { FNWAY_PORT: '81' }).port, 81);
  assert.equal(parseConfig({ port: '82' }, { FNWAY_PORT: '81' }).port, 82);
  assert.equal(parseConfig({}, { FNWAY_PORT: '' }).port, 8080);
});

test('it listens on loopback unless told otherwise', () => {
  assert.equal(parseConfig({}, {}).host, '127.0.0.1');
});

for (const [flag, value] of [
  ['port', '-1'],
  ['port', '70000'],
  ['port', 'x'],
  ['logLevel', 'loud'],
  ['logFormat', 'xml'],
  ['trustProxy', 'maybe'],
  ['warm', '1000'],
  ['uidRange', '0:10'],
  ['uidRange', '5000'],
  ['headersBytesMax', 'many'],
  ['headersBytesMax', '0'],
  ['headersBytesMax', '1Mi'],
  ['bufferedBodyBytesMax', '2Gi'],
  ['headersMsMax', '10'],
  ['headersMsMax', '0s'],
  ['bodyIdleMsMax', '0s'],
  ['bodyIdleMsMax', '25d'],
  ['headersMsMax', `${'9'.repeat(330)}d`],
  ['port', '1e3'],
  ['port', '0x50'],
  ['data', ' '],
  ['connectionsMax', '0'],
  ['waitingCallsMax', '-1'],
]) {
  test(`${flag} ${value} stops the start and says what would be right`, () => {
    assert.throws(() => parseConfig({ [flag!]: value }, {}), {
      code: 'CONFIG_INVALID',
      message: /give/,
    });
  });
}

test('tools inherit proxies, certificates and registries, and nothing else', () => {
  const env = {
    HTTPS_PROXY: 'p',
    PIP_INDEX_URL: 'i',
    npm_config_registry: 'r',
    SECRET: 's',
    FNWAY_ADMIN_TOKEN: 'a'.repeat(20),
    npm_config__auth: 'x',
  };
  assert.deepEqual(parseConfig({}, env).toolEnv, {
    HTTPS_PROXY: 'p',
    PIP_INDEX_URL: 'i',
    npm_config_registry: 'r',
  });
});
