import { setImmediate as turn } from 'node:timers/promises';

let last: Promise<void> = Promise.resolve();

/**
 * Resolves in a later turn of the event loop. Of all callers that wait, one goes on in each turn, so sockets are read
 * after every piece of work, however many long tasks are under way.
 */
export function nextTurn(): Promise<void> {
  last = last.then(() => turn());
  return last;
}
