/** What a function that fails answers, and what becomes of its process: as the functions framework has it. */
import { exchangeOf } from './exchange.mjs';

/** The framework's, and no other program's: an exception outside of any call ended it. */
const uncaughtStatus = 16;

/** Answered when the whole process fails: nobody knows whose fault it is. */
let latest;

export function rememberLatest(res) {
  latest = res;
}

/**
 * Prints the error and answers 500, unless the answer has begun.
 * @param {any} res @param {any} error @param {'crash' | 'error'} kind
 */
export function sendFailure(res, error, kind) {
  print(error?.stack || error);
  answerFailure(res, error, kind);
}

function answerFailure(res, error, kind) {
  if (res.headersSent) return;
  const exchange = exchangeOf(res.req);
  if (exchange !== undefined) exchange.threw = true;
  res.set('X-Google-Status', kind);
  // What an error says may not be for every caller.
  if (process.env.NODE_ENV === 'production') res.sendStatus(500);
  else res.status(500).send(`${error?.message || error}`);
}

function print(what) {
  try {
    console.error(what);
  } catch {
    console.error('fnway: an error that cannot be printed');
  }
}

/**
 * An exception that belongs to no call ends the instance: its state is unknown. The latest call gets it as its answer,
 * the others fail with the process.
 * @param {{ flush: () => void, end: (fn: () => void) => void }} link
 */
export function endInstanceOnUncaught(link) {
  let ending = false;
  const end = title => error => {
    print(title);
    if (latest !== undefined) {
      sendFailure(latest, error, 'crash');
      exchangeOf(latest.req)?.answerNow();
    } else print(error?.stack || error);
    if (ending) return;
    ending = true;
    link.end(() => process.exit(uncaughtStatus));
  };
  process.on('uncaughtException', end('Uncaught exception'));
  process.on('unhandledRejection', end('Unhandled rejection'));
  process.on('exit', code => {
    if (latest === undefined || latest.headersSent) return;
    answerFailure(latest, new Error(`Process exited with code ${code}`), 'crash');
    exchangeOf(latest.req)?.answerNow();
    link.flush();
  });
}
