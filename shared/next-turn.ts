import { setImmediate as turn } from 'node:timers/promises';

let last: Promise<void> = Promise.resolve();

/**
 * Resolves in a later turn of the event loop. Only one of the waiting callers resumes per turn, so that sockets are
 * read between any two pieces of work, however many long tasks are running.
 */
export function nextTurn(): Promise<void> {
  last = last.then(() => turn());
  return last;
}
