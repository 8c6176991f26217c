/**
 * Tokens. Goal: only the very token is equal, only two forms of header give one, and the admin
 * token is never weak nor open to others. Method: tables; real token files in a directory of the
 * test.
 */
import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { openAdminToken, parseAuthorization, tokensEqual } from './token.ts';

const root = mkdtempSync(path.join(tmpdir(), 'fnway-token-'));
after(() => rmSync(root, { recursive: true }));

let files = 0;
const newPath = () => path.join(root, `token-${files++}`);

test('a token equals itself only', () => {
  const token = 'fnt_0123456789abcdef';
  assert.equal(tokensEqual(token, token), true);
  assert.equal(tokensEqual(`${token.slice(0, -1)}g`, token), false);
  assert.equal(tokensEqual(`g${token.slice(1)}`, token), false);
  assert.equal(tokensEqual(token.slice(0, -1), token), false);
  assert.equal(tokensEqual(`${token}x`, token), false);
  assert.equal(tokensEqual(token.toUpperCase(), token), false);
});

test('tokens beyond ASCII are compared by their bytes', () => {
  assert.equal(tokensEqual('é', 'é'), true);
  assert.equal(tokensEqual('é', 'e'), false);
  assert.equal(tokensEqual('éa', 'ab'), false);
});

test('an empty token equals nothing, not even another', () => {
  assert.equal(tokensEqual('', ''), false);
  assert.equal(tokensEqual('', 'x'), false);
  assert.equal(tokensEqual('x', ''), false);
});

test('Bearer and Token headers give their token', () => {
  const headers = ['Bearer abc', 'Token abc', 'bearer abc', 'TOKEN abc', 'Bearer   abc'];
  for (const header of headers) assert.equal(parseAuthorization(header), 'abc', header);
  assert.equal(parseAuthorization('Bearer fnt_A-z~+/=.!'), 'fnt_A-z~+/=.!');
});

test('a header of any other form gives no token', () => {
  const headers = [
    '',
    'abc',
    'Bearer',
    'Bearer ',
    'Bearerabc',
    ' Bearer abc',
    'Bearer abc ',
    'Bearer abc def',
    'Bearer\tabc',
    'Bearer abc\n',
    'Bearer é',
    'Basic abc',
    'XBearer abc',
    'Bearer: abc',
  ];
  for (const header of headers) assert.equal(parseAuthorization(header), undefined, header);
  assert.equal(parseAuthorization(undefined), undefined);
});

test('a long header that gives no token is refused quickly', () => {
  const start = performance.now();
  for (const filler of [' ', 'a', ' a']) parseAuthorization(`Bearer ${filler.repeat(1e6)}\n`);
  assert.ok(performance.now() - start < 500);
});

test('a configured admin token is used and no file is made', () => {
  const file = newPath();
  assert.equal(openAdminToken({ file, fromEnv: '0123456789abcdef' }), '0123456789abcdef');
  assert.equal(existsSync(file), false);
});

test('a configured admin token that is weak or cannot be sent is refused, unnamed', () => {
  const tokens = ['', '0123456789abcde', '0123456789 abcdef', '0123456789abcdef\n', 'é'.repeat(16)];
  for (const fromEnv of tokens) {
    assert.throws(
      () => openAdminToken({ file: newPath(), fromEnv }),
      error => {
        const { code, message } = error as Error & { code: string };
        assert.equal(code, 'CONFIG_INVALID');
        assert.match(message, /needs 16 or more visible ASCII characters/);
        return fromEnv === '' || !message.includes(fromEnv);
      },
    );
  }
});

test('the first start makes an admin token in a file for the owner only', () => {
  const file = newPath();
  const token = openAdminToken({ file, fromEnv: undefined });
  assert.match(token, /^fna_[\w-]{43}$/);
  assert.equal(readFileSync(file, 'utf8'), `${token}\n`);
  assert.equal(statSync(file).mode & 0o777, 0o600);
});

test('a later start has the same admin token, and another file another', () => {
  const file = newPath();
  const token = openAdminToken({ file, fromEnv: undefined });
  assert.equal(openAdminToken({ file, fromEnv: undefined }), token);
  assert.notEqual(openAdminToken({ file: newPath(), fromEnv: undefined }), token);
});

test('an admin token in a file that others can read is refused', () => {
  const file = newPath();
  openAdminToken({ file, fromEnv: undefined });
  chmodSync(file, 0o644);
  assert.throws(() => openAdminToken({ file, fromEnv: undefined }), {
    code: 'DATA_DIRECTORY_UNUSABLE',
    message: /others can use this secret \(mode 644\)/,
    remedy: new RegExp(`chmod 600 ${file}`),
  });
});

test('a file without a usable admin token is refused', () => {
  for (const content of ['', '\n', 'short', 'two words of a token']) {
    const file = newPath();
    writeFileSync(file, content, { mode: 0o600 });
    assert.throws(() => openAdminToken({ file, fromEnv: undefined }), {
      code: 'DATA_DIRECTORY_UNUSABLE',
      message: /holds no token/,
    });
  }
});
