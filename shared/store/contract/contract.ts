/**
 * The requirements on every store: each backend runs this suite against a real store.
 *
 * Preconditions, which the creators of events (the decoder, the recorder) ensure:
 * - `source`, `host`, `method` and `endpoint` have no control characters and no lone surrogates, and at most 255
 *   characters (UTF-16 units);
 * - `uri`, `userAgent`, `referrer` and the other texts have no lone surrogates and no NUL, and at most 64 KiB in
 *   total. All other characters, including newlines, read back unchanged;
 * - numbers are finite, counts are integers of at most 2^53 - 1, and a status is 0 or has three digits.
 */
import { declareClosing } from './closing.js';
import type { Declare, DeclareTest, StoreUnderTest } from './declare.js';
import { declareEvents } from './events.js';
import { declareFilters } from './filters.js';
import { declareHostCounts } from './host-counts.js';
import { declareImports } from './imports.js';
import { declareLedgers } from './ledgers.js';
import { declareRawRequests } from './raw-requests.js';
import { declareRequestRollups } from './request-rollups.js';
import { declareRequestTopLists } from './request-top-lists.js';
import { declareRollups } from './rollups.js';
import { declareSampling } from './sampling.js';
import { declareTopLists } from './top-lists.js';
import { declareValues } from './values.js';
import { declareWriting } from './writing.js';

/** Declares one test per requirement. Each calls `open` for a new store. */
export function runStoreContract(test: DeclareTest, name: string, open: () => Promise<StoreUnderTest>): void {
  const declare: Declare = (title, run) => {
    test(`${name}: ${title}`, async (t) => {
      const opened = await open();
      try {
        await run(t, opened);
      } finally {
        await opened.cleanup();
      }
    });
  };
  declareWriting(declare);
  declareImports(declare);
  declareTopLists(declare);
  declareRollups(declare);
  declareSampling(declare);
  declareHostCounts(declare);
  declareRawRequests(declare);
  declareFilters(declare);
  declareRequestRollups(declare);
  declareRequestTopLists(declare);
  declareValues(declare);
  declareLedgers(declare);
  declareEvents(declare);
  declareClosing(declare);
}
