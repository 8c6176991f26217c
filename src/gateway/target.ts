/**
 * The paths of calls: `/function/{name}[.{namespace}][@version][/path]`, the same below `/async-function/`, and
 * `/webhook/{name}[.{namespace}][/path]`.
 */

const prefix = '/function/';
const asyncPrefix = '/async-function/';
const webhookPrefix = '/webhook/';

export function isDataPlane(target: string): boolean {
  return (
    target.startsWith(prefix) || target.startsWith(asyncPrefix) || target.startsWith(webhookPrefix)
  );
}

export interface Address {
  namespace: string;
  name: string;
  /** NaN for what is no version's number. */
  version: number | undefined;
  /** It is to be accepted, and run later. */
  isAsync: boolean;
  /** Its name is that of a webhook. */
  isWebhook: boolean;
  /** Path and query for the function. */
  rest: string;
}

/** Where a request goes. Names are not checked here: what is no name is no function. */
export function parseTarget(target: string): Address {
  // The second letter tells them apart.
  const letter = target.charCodeAt(1);
  const isAsync = letter === 0x61;
  const isWebhook = letter === 0x77;
  const start = isAsync ? asyncPrefix.length : isWebhook ? webhookPrefix.length : prefix.length;
  let end = start;
  while (end < target.length) {
    const c = target.charCodeAt(end);
    if (c === 0x2f || c === 0x3f) break;
    end++;
  }
  let name = target.slice(start, end);
  let version: number | undefined;
  const at = name.indexOf('@');
  if (at !== -1) {
    const text = name.slice(at + 1);
    version = /^[1-9]\d{0,8}$/.test(text) ? Number(text) : Number.NaN;
    name = name.slice(0, at);
  }
  let namespace = 'default';
  const dot = name.indexOf('.');
  if (dot !== -1) {
    namespace = name.slice(dot + 1);
    name = name.slice(0, dot);
  }
  const tail = target.slice(end);
  return {
    namespace,
    name,
    version,
    isAsync,
    isWebhook,
    rest: tail.charCodeAt(0) === 0x2f ? tail : `/${tail}`,
  };
}
