/**
 * The server part of an instance that is written for the functions framework: an Express app that reads the body as the
 * framework does, brings events into the shape that the function takes, and calls it.
 */
import domain from 'node:domain';
import {
  attributesOf,
  fromPush,
  isBinaryCloudEvent,
  partsOf,
  toCloudEvent,
  toLegacy,
} from './events.mjs';
import { exchangeOf } from './exchange.mjs';
import { rememberLatest, sendFailure } from './failure.mjs';

/** Of a body after it is unpacked: beyond what any gateway takes, as with the framework. */
const bodyLimit = '1024mb';
const ignoredByDefault = ['/favicon.ico', '/robots.txt'];
const everyPath = '/{*splat}';

/** @param {any} express @param {{ signature: string, handle: Function }} found */
export function createApp(express, { signature, handle }) {
  const app = express();
  app.enable('trust proxy');
  app.disable('x-powered-by');
  app.set('etag', false);
  app.use((_, res, next) => {
    rememberLatest(res);
    next();
  });
  useParsers(app, express);
  app.use(nameExecution);
  if (signature !== 'http') app.use(shapeEvent(signature));
  ignoreRoutes(app, signature);
  if (signature === 'http') app.all(everyPath, callHttp(handle));
  else app.post(everyPath, callEvent(signature, handle));
  return app;
}

/** The first that knows the content type reads the body; the last one takes any. */
function useParsers(app, express) {
  const keepRaw = {
    limit: bodyLimit,
    verify: (req, _, bytes) => {
      req.rawBody = bytes;
    },
  };
  app.use(express.json({ ...keepRaw, type: 'application/cloudevents+json' }));
  app.use(express.json(keepRaw));
  app.use(express.text(keepRaw));
  app.use(express.urlencoded({ ...keepRaw, extended: true }));
  app.use(express.raw({ ...keepRaw, type: '*/*' }));
}

function nameExecution(req, _, next) {
  req.executionId = req.header('function-execution-id') || newExecutionId();
  const trace = /^\w+\/(\d+)(?:;o=.+)?$/.exec(req.header('x-cloud-trace-context') ?? '');
  if (trace !== null) req.spanId = trace[1];
  const exchange = exchangeOf(req);
  Object.defineProperty(req, 'abortController', { get: () => exchange.abortController });
  next();
}

/** Twelve letters and digits. */
function newExecutionId() {
  const part = number => number.toString(36).slice(-6).padStart(6, '0');
  return part(Date.now()) + part(Math.random());
}

function shapeEvent(signature) {
  return (req, _, next) => {
    const isBinary = isBinaryCloudEvent(req.headers);
    if (!isBinary) req.body = fromPush(req.body, req.path);
    if (signature === 'event' && isBinary) req.body = toLegacy(req.body, req.headers);
    if (signature === 'cloudevent' && !isBinary) req.body = toCloudEvent(req.body);
    next();
  };
}

/** Routes that never reach the function: by default what only browsers and crawlers ask for. */
function ignoreRoutes(app, signature) {
  const named = process.env.IGNORED_ROUTES;
  if (named === undefined && signature !== 'http') return;
  if (named?.trim() === '') return;
  app.use(named ?? ignoredByDefault, (_, res) => {
    res.status(404).send(null);
  });
}

/**
 * Runs a function so that what goes wrong in it is its call's failure, also later and in what it has started.
 * @param {(state: { isFinished: boolean }) => any} run
 */
function guarded(req, res, run) {
  const exchange = exchangeOf(req);
  const state = { isFinished: false };
  res.once('finish', () => {
    state.isFinished = true;
  });
  const fail = error => {
    if (state.isFinished) return console.error(`Exception from a finished function: ${error}`);
    state.isFinished = true;
    sendFailure(res, error, 'crash');
  };
  const context = domain.create();
  context.on('error', fail);
  context.run(() =>
    process.nextTick(() => {
      if (exchange.isGone) return;
      const result = run(state);
      if (!(result instanceof Promise)) return;
      exchange.runs(result);
      result.catch(fail);
    }),
  );
}

function callHttp(handle) {
  return (req, res) => guarded(req, res, () => handle(req, res));
}

function callEvent(signature, handle) {
  const argumentsOf = signature === 'event' ? eventArguments : cloudEventArguments;
  const takesCallback = handle.length > (signature === 'event' ? 2 : 1);
  return (req, res) =>
    guarded(req, res, state => {
      const done = process.domain.bind((error, result) => {
        if (state.isFinished) return console.log('Ignoring extra callback call');
        state.isFinished = true;
        sendResult(res, error, result);
      });
      const given = argumentsOf(req);
      if (takesCallback) return handle(...given, done);
      const running = Promise.resolve().then(() => handle(...given));
      return running.then(
        result => done(null, result),
        error => done(error, undefined),
      );
    });
}

function eventArguments({ body }) {
  const { data, context } = partsOf(body);
  return [data, context];
}

function cloudEventArguments(req) {
  const event = isBinaryCloudEvent(req.headers)
    ? { ...attributesOf(req.headers), data: req.body }
    : req.body;
  const traceparent = req.header('traceparent');
  if (traceparent) event.traceparent = traceparent;
  return [event];
}

/** A value of an event function is sent, though hardly anybody reads it. */
function sendResult(res, error, result) {
  if (error) return sendFailure(res, error, 'error');
  if (result === undefined || result === null) return res.sendStatus(204);
  // Express would take it for a status.
  if (typeof result === 'number') return res.json(result);
  try {
    res.send(result);
  } catch (problem) {
    // The function succeeded; only its value cannot be sent.
    console.error(`Error serializing return value: ${problem}`);
    res.sendStatus(204);
  }
}
