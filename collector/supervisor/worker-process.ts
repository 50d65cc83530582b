import { fork, type ChildProcess } from 'node:child_process';
import type { Socket } from 'node:net';
import type { Log } from '../../shared/log.js';
import { supervisorVariable, supervisorVersion, type FromWorker, type ToWorker } from './protocol.js';
import { SilenceWatch } from './silence.js';

/** How a worker is started. */
export interface WorkerParts {
  /** The program's entry file. */
  readonly program: string;
  readonly args: readonly string[];
  readonly log: Log;
  /** Kills a worker that does not answer. */
  readonly kill: (worker: ChildProcess) => void;
}

/** Time for which the last message of a worker may arrive after its exit, in milliseconds. */
const lastMessageMsMax = 1000;

/**
 * A worker: the program as a child process, from its start to its exit. It knows how far the worker has come and
 * which connections it has. What follows from that, the supervisor decides.
 */
export class WorkerProcess {
  /** Resolves to whether its settings are valid and its addresses are open; to `false` if it ended before. */
  readonly ready: Promise<boolean>;
  /** Resolves to its exit status, after all its messages have arrived. */
  readonly ended: Promise<number>;
  /** Listen addresses in its settings. */
  addresses: readonly string[] = [];
  /** Listen addresses whose connections it reads. */
  readonly takes = new Set<string>();
  /** Connections for which it has a descriptor. */
  readonly held = new Set<number>();
  readonly #process: ChildProcess;
  readonly #kill: (worker: ChildProcess) => void;
  readonly #startMs = performance.now();
  readonly #silence = new SilenceWatch();
  #resolveReady!: (isReady: boolean) => void;
  #isRunning = false;
  #isStopping = false;
  #isKilled = false;

  /** Starts the worker. Its messages go to `onMessage`. */
  constructor(
    { program, args, log, kill }: WorkerParts,
    onMessage: (worker: WorkerProcess, message: FromWorker) => void,
  ) {
    this.#kill = kill;
    // Without the dashes, Node interprets --env-file as its own option, at any position.
    const child = fork(program, args, {
      execArgv: [...process.execArgv, '--'],
      serialization: 'advanced',
      env: { ...process.env, [supervisorVariable]: supervisorVersion },
    });
    this.#process = child;
    child.on('error', (error) => {
      if (child.connected) log.warn(`Cannot reach the worker: ${error.message}`);
    });
    child.on('message', (message: FromWorker) => {
      onMessage(this, message);
    });
    // If it was not spawned, only 'error' is emitted.
    const exited = child.pid === undefined ? Promise.resolve(1) : exitOf(child);
    this.ended = exited.then((status) => {
      this.#isRunning = false;
      this.#resolveReady(false);
      return status;
    });
    this.ready = new Promise((resolve) => {
      this.#resolveReady = resolve;
    });
  }

  /** Its process ID; 0 if it could not be started. */
  get pid(): number {
    return this.#process.pid ?? 0;
  }

  /** Time since its start, in milliseconds. */
  get uptimeMs(): number {
    return performance.now() - this.#startMs;
  }

  /** Whether it has started and has not ended. */
  get isRunning(): boolean {
    return this.#isRunning;
  }

  /** Whether it was asked to stop. It gets no more connections. */
  get isStopping(): boolean {
    return this.#isStopping;
  }

  /** Whether it did not answer and was killed. It never reads again, but may take a while to exit. */
  get isKilled(): boolean {
    return this.#isKilled;
  }

  /** Whether it reads the connections that it gets. */
  get canRead(): boolean {
    return this.#isRunning && !this.#isStopping && !this.#isKilled;
  }

  /** Records that its settings are valid and its addresses are open. */
  markReady(): void {
    this.#resolveReady(true);
  }

  /** Records that it has started. From now on it must answer pings. */
  markRunning(): void {
    this.#isRunning = true;
    this.#silence.answered();
  }

  /** Records the answer to a ping. */
  answered(): void {
    this.#silence.answered();
  }

  /**
   * Pings it, if it has to answer, after another `passedMs` milliseconds. Returns how long it has been silent if that
   * is too long, in milliseconds; otherwise `undefined`. A stopping worker without connections need not answer, since
   * it blocks nobody.
   */
  ping(passedMs: number): number | undefined {
    if (!this.#isRunning || this.#isKilled || (this.#isStopping && this.held.size === 0)) return undefined;
    const silentMs = this.#silence.tick(passedMs);
    if (silentMs === undefined) this.send({ type: 'ping' });
    return silentMs;
  }

  /** Sends a message, unless the channel is closed. Calls `onSent` when it has been sent. */
  send(message: ToWorker, onSent?: () => void): void {
    if (this.#process.connected)
      this.#process.send(message, () => {
        onSent?.();
      });
  }

  /** Passes a connection on, unless the channel is closed. This process keeps its own descriptor. */
  pass(message: Extract<ToWorker, { type: 'connection' }>, socket: Socket): void {
    if (!this.#process.connected) return;
    this.held.add(message.id);
    this.#process.send(message, socket, { keepOpen: true });
  }

  /** Asks it to stop: to hand its connections back, or to read them to the end. Calls `onSent` when that is sent. */
  requestStop({ handBack }: { readonly handBack: boolean }, onSent?: () => void): void {
    this.#isStopping = true;
    this.send({ type: 'stop', handBack }, onSent);
  }

  /** Kills it because it does not answer. */
  killSilent(): void {
    this.#isKilled = true;
    this.#kill(this.#process);
  }

  /** Sends SIGKILL. */
  terminate(): void {
    this.#process.kill('SIGKILL');
  }
}

/**
 * Resolves to the exit status of a process once no message from it can arrive. Node does not always emit 'disconnect'
 * for a process that was killed while sockets were being passed to it.
 */
function exitOf(child: ChildProcess): Promise<number> {
  return new Promise((resolve) => {
    child.once('exit', (status) => {
      const end = (): void => {
        resolve(status ?? 1);
      };
      if (!child.connected) {
        end();
        return;
      }
      const timer = setTimeout(end, lastMessageMsMax);
      child.once('disconnect', () => {
        clearTimeout(timer);
        end();
      });
    });
  });
}
