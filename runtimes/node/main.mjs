/**
 * The main program of the node runtime. A generic process that has linked itself to the gateway and waits; LOAD makes
 * it an instance of one version. It imports everything of its own before it takes the function's identity, because
 * its files may lie where that user cannot read. It runs nothing of a user's before identity and environment are set.
 */
import { setSourceMapsSupport } from 'node:module';
import { answerCall, cancelCall, creditCall, dataOfCall } from './calls.mjs';
import { becomeInstance, LoadText } from './instance.mjs';
import { broken, Link, types } from './link.mjs';
import { watchModules } from './modules.mjs';
import { markOutput } from './output.mjs';
import { warmUp } from './warm-up.mjs';
import { installWebGlobals } from './web.mjs';

const path = process.env.FNWAY_LINK;
const secret = process.env.FNWAY_LINK_SECRET;
if (path === undefined || secret === undefined) {
  process.stderr.write(
    'fnway: this program is started by the gateway, with FNWAY_LINK and FNWAY_LINK_SECRET\n',
  );
  process.exit(2);
}
process.title = 'fnway-node';
// Each change of identity stops every thread for a moment: this one need not wait for LOAD.
if (process.getuid() === 0) process.setgroups([]);
installWebGlobals();
markOutput();

const loadText = new LoadText();
let loading = false;
let stopping = false;
let inFlight = 0;
/** Calls in a row that came while no other was here. After so many the next is taken to be alone too: as in the gateway. */
let aloneCalls = 0;
const aloneCallsMin = 16;

const link = new Link(path, receive, () => process.exit(0));
// Compiled TypeScript carries its source map: errors then name the user's own lines.
// Those of packages are not read: they are many, and their lines are nobody's here.
setSourceMapsSupport(true, { nodeModules: false, generatedCode: false });
watchModules();
if (process.env.FNWAY_AWAITED === undefined) await warmUp();
link.json(types.HELLO, 0, { protocol: 1, secret, pid: process.pid, runtime: 'node' });

function receive(type, flags, stream, arg, chunk, start, end) {
  switch (type) {
    case types.CALL:
      inFlight++;
      aloneCalls = inFlight === 1 ? aloneCalls + 1 : 0;
      link.prompt = aloneCalls > aloneCallsMin;
      return answerCall(link, flags, stream, chunk, start, start + arg, end, callEnded);
    case types.DATA:
      if (stream !== 0) return dataOfCall(stream, flags, link.keep(chunk, start, end));
      return loadPart(flags, chunk, start, end);
    case types.CREDIT:
      return creditCall(stream, arg);
    case types.CANCEL:
      return cancelCall(stream, chunk.toString('utf8', start, end));
    case types.PING:
      return link.frame(types.PONG, 0, 0, arg);
    case types.LOAD:
      return loadPart(flags, chunk, start, end);
    case types.STOP:
      stopping = true;
      if (inFlight === 0) leave();
      return;
    default:
      broken(`a frame of type ${type}`);
  }
}

function callEnded() {
  inFlight--;
  if (stopping && inFlight === 0) leave();
}

function leave() {
  link.end(() => process.exit(0));
}

function loadPart(flags, chunk, start, end) {
  if (loading) return;
  const text = loadText.add(flags, chunk, start, end);
  if (text === undefined) return;
  loading = true;
  load(text);
}

async function load(text) {
  const { problem, style } = await becomeInstance(text, link);
  if (problem !== undefined) link.json(types.LOAD_FAILED, 0, problem);
  else link.json(types.LOADED, 0, { body: style === 'web' ? 'stream' : 'whole' });
  link.flush();
}
