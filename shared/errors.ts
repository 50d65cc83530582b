/** What the caller of a store should do about an error. */
export type StoreErrorAction =
  /** The store is down or busy: the same batch may go through later. */
  | 'retry'
  /** A person has to act first (a token, a bucket): hold everything and try from time to time. */
  | 'hold'
  /** The store will never take this batch: give it up and count it. */
  | 'drop'
  /** The process cannot go on with this store. */
  | 'stop';

/**
 * A store that could not do what it was asked. The message says in plain words what, why, and what to do: people read
 * it on the page.
 */
export class StoreError extends Error {
  override readonly name = 'StoreError';
  readonly action: StoreErrorAction;
  /** How long the store asks to be left alone, in milliseconds, where it says so. */
  readonly retryAfterMs: number | undefined;
  /** Another process has the store open, and only one can: it may be asked to do the work. */
  readonly inUse: boolean;
  /** What has no room left, where that is why. */
  readonly full: 'spool-full' | 'disk-full' | undefined;
  /** What the server or the system said, for the log alone; without secrets. */
  readonly detail: string | undefined;
  /** The store holds other contents than before: totals that were written to it have to be counted anew. */
  readonly contentsReplaced: boolean;

  constructor(
    action: StoreErrorAction,
    message: string,
    options: {
      cause?: unknown;
      retryAfterMs?: number;
      inUse?: boolean;
      full?: 'spool-full' | 'disk-full';
      contentsReplaced?: boolean;
      detail?: string | undefined;
    } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.action = action;
    this.retryAfterMs = options.retryAfterMs;
    this.inUse = options.inUse ?? false;
    this.full = options.full;
    this.detail = options.detail;
    this.contentsReplaced = options.contentsReplaced ?? false;
  }
}

/** A setting, option or argument that cannot be used: the program ends with status 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** What a person can do about an error of the file system, as a sentence: `Make room on its disk.` */
export function fileAdvice(error: unknown): string {
  switch ((error as NodeJS.ErrnoException | null)?.code) {
    case 'ENOSPC':
    case 'EDQUOT':
      return 'Make room on its disk.';
    case 'EACCES':
    case 'EPERM':
      return 'Let this user write there.';
    case 'EROFS':
      return 'Its file system is mounted read-only: see why, and mount it for writing.';
    case 'ENOENT':
    case 'ENOTDIR':
      return 'Make its folder again, where this user can write.';
    case 'EFBIG':
      return 'A limit on the size of files is reached: raise it (ulimit -f).';
    case 'EMFILE':
    case 'ENFILE':
      return 'Too many files are open: raise the limit (ulimit -n).';
    default:
      return 'See that its disk works.';
  }
}

/** Whether an error of the file system says that there is no room, for want of disk or by a limit. */
export function isDiskFull(error: unknown): boolean {
  return ['ENOSPC', 'EDQUOT', 'EFBIG'].includes((error as NodeJS.ErrnoException | null)?.code ?? '');
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The stack of anything that was thrown, which begins with its message. For logs. */
export function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/** The message of anything that was thrown, with the detail of a `StoreError`: for logs and dead letters. */
export function detailedMessageOf(error: unknown): string {
  return error instanceof StoreError && error.detail !== undefined
    ? `${error.message} [${error.detail}]`
    : messageOf(error);
}
