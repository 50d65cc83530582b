import type { Store } from '../shared/store/store.js';

/**
 * Wraps a store in a plain object, so that a test can spread it and replace a method: the methods of a class are in its
 * prototype.
 */
export function plainStore(real: Store): Store {
  const { description, mergesRollups, bulkRequests, spool, requestRetentionMs, rollupRetentionMs, changes } = real;
  return {
    description,
    mergesRollups,
    createBatchEncoder: (recorder) => real.createBatchEncoder(recorder),
    bulkRequests,
    spool,
    requestRetentionMs,
    rollupRetentionMs,
    changes,
    get problem() {
      return real.problem;
    },
    write: (batch) => real.write(batch),
    readRollups: (...query) => real.readRollups(...query),
    streamRollups: (...query) => real.streamRollups(...query),
    countHosts: (...query) => real.countHosts(...query),
    readTopLists: (...query) => real.readTopLists(...query),
    streamTopLists: (...query) => real.streamTopLists(...query),
    readRequests: (...query) => real.readRequests(...query),
    streamRequests: (...query) => real.streamRequests(...query),
    rollUpRequests: (...query) => real.rollUpRequests(...query),
    topListsOfRequests: (...query) => real.topListsOfRequests(...query),
    readStoredWindows: (...query) => real.readStoredWindows(...query),
    readEvents: (...query) => real.readEvents(...query),
    readLedgers: (...query) => real.readLedgers(...query),
    readImported: (...query) => real.readImported(...query),
    listImports: (...query) => real.listImports(...query),
    takeBack: (...query) => real.takeBack(...query),
    requestsFrom: () => real.requestsFrom(),
    ping: () => real.ping(),
    pingToWrite: () => real.pingToWrite(),
    close: () => real.close(),
  };
}
