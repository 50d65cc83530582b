import type { ExecutionContext } from 'ava';
import type { Store } from '../store.js';

/** An empty store that no other test uses. */
export interface StoreUnderTest {
  readonly store: Store;
  /** Closes the store and reopens it with its rows, like a restart of the program. */
  reopen(): Promise<Store>;
  /** Closes the store and removes its rows. */
  cleanup(): Promise<void>;
}

/** `test` or `test.skip` of ava. */
export type DeclareTest = (title: string, run: (t: ExecutionContext) => Promise<void>) => void;

/** Declares a test of one requirement, which gets a store of its own. */
export type Declare = (title: string, run: (t: ExecutionContext, opened: StoreUnderTest) => Promise<void>) => void;
