/** How the caller of a store should handle an error. */
export type StoreErrorAction =
  /** The store is down or busy: retry the same batch. */
  | 'retry'
  /** The operator has to act (a token, a bucket): keep all batches and retry from time to time. */
  | 'hold'
  /** The store will never accept this batch: discard and count it. */
  | 'drop'
  /** The process cannot continue with this store. */
  | 'stop';

/** Error of a store. The message says in plain words what failed, why, and what to do: it is shown on the page. */
export class StoreError extends Error {
  override readonly name = 'StoreError';
  readonly action: StoreErrorAction;
  /** Delay that the store asked for, in milliseconds. */
  readonly retryAfterMs: number | undefined;
  /** Another process has the store open exclusively. It can be asked to do the work. */
  readonly inUse: boolean;
  /** Set if the error is caused by lack of space. */
  readonly full: 'spool-full' | 'disk-full' | undefined;
  /** Original message of the server or the system, without secrets. Only for the log. */
  readonly detail: string | undefined;
  /** The contents of the store were replaced: open rollups have to be counted again. */
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

/** Invalid setting, option or argument. The program exits with status 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** Advice on a file system error, as a sentence: `Make room on its disk.` */
export function fileAdvice(error: unknown): string {
  switch ((error as NodeJS.ErrnoException | null)?.code) {
    case 'ENOSPC':
    case 'EDQUOT':
      return 'Make room on its disk.';
    case 'EACCES':
    case 'EPERM':
      return 'Give this user write permission there.';
    case 'EROFS':
      return 'Its file system is mounted read-only: find out why, and remount it writable.';
    case 'ENOENT':
    case 'ENOTDIR':
      return 'Create its folder again, writable by this user.';
    case 'EFBIG':
      return 'The file size limit is reached: raise it (ulimit -f).';
    case 'EMFILE':
    case 'ENFILE':
      return 'Too many files are open: raise the limit (ulimit -n).';
    default:
      return 'Check its disk.';
  }
}

/** Whether a file system error means that there is no space, or that a quota or limit is reached. */
export function isDiskFull(error: unknown): boolean {
  return ['ENOSPC', 'EDQUOT', 'EFBIG'].includes((error as NodeJS.ErrnoException | null)?.code ?? '');
}

/** Message of any thrown value. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Stack of any thrown value, starting with its message. For logs. */
export function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/** Message of any thrown value, with the detail of a `StoreError`. For logs and dead letters. */
export function detailedMessageOf(error: unknown): string {
  return error instanceof StoreError && error.detail !== undefined
    ? `${error.message} [${error.detail}]`
    : messageOf(error);
}
