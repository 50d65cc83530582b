import type { ChildProcess } from 'node:child_process';
import { messageOf } from '../../shared/errors.js';
import type { Log } from '../../shared/log.js';
import type { UsedTimes } from '../../shared/record/unique-time.js';
import { pause } from '../../shared/retry.js';
import { formatListenAddress } from '../listen/address.js';
import { Connections } from './connections.js';
import type { FromWorker } from './protocol.js';
import { OwnClock, tickMs } from './silence.js';
import { WorkerProcess } from './worker-process.js';

/** Maximum time for a worker to hand over, in milliseconds. Then it is killed. */
const handOverMsMax = 15_000;
/** Back-off before a crashed worker is restarted, in milliseconds. Doubles from the minimum to the maximum. */
const backoffMsMin = 100;
const backoffMsMax = 10_000;
/** Minimum uptime of a worker after which the back-off is reset, in milliseconds. */
const stableMsMin = 10_000;

/** Dependencies of `runSupervisor`. */
export interface SupervisorParts {
  /** The program's entry file. */
  readonly program: string;
  readonly args: readonly string[];
  readonly log: Log;
  /** Kills a worker that does not answer. Default: with SIGKILL. */
  readonly kill?: (worker: ChildProcess) => void;
}

/**
 * Runs the program as a worker, and restarts it on SIGHUP and when it exits unexpectedly, until SIGTERM or SIGINT.
 * Resolves to the exit status.
 */
export async function runSupervisor(parts: SupervisorParts): Promise<number> {
  return await new Supervisor(parts).run();
}

/**
 * The supervisor: a small process that owns the stream sockets and all connections, and outlives the worker that reads
 * them. It starts, replaces, watches and stops the workers.
 *
 * - UDP sockets belong to the worker: Node cannot hold a datagram socket without reading it.
 * - A worker gets connections once it is `running`. From then on it must answer four pings per second. If it does not
 *   answer for `silentMsMax`, it is killed and a new worker gets its connections: closing this process's descriptor
 *   would not close the worker's.
 */
class Supervisor {
  readonly #log: Log;
  readonly #startWorker: () => WorkerProcess;
  readonly #connections: Connections;
  readonly #stopped = new AbortController();
  readonly #clock = new OwnClock();
  #active: WorkerProcess;
  /** The worker that replaces the active one. */
  #next: WorkerProcess | undefined;
  /** Whether another restart was requested during a restart. */
  #isRestartPending = false;
  /** Whether any worker has started. */
  #hasRun = false;
  /** Timestamps of the last requests of the previous worker. */
  #usedTimes: UsedTimes | undefined;
  #backoffMs = backoffMsMin;

  /** Starts the first worker. */
  constructor({ program, args, log, kill = (worker) => worker.kill('SIGKILL') }: SupervisorParts) {
    this.#log = log;
    this.#connections = new Connections({ log, activeWorker: () => this.#active });
    this.#startWorker = () =>
      new WorkerProcess({ program, args, log, kill }, (worker, message) => {
        this.#receive(worker, message);
      });
    this.#active = this.#startWorker();
  }

  /** Handles signals and keeps a worker running until a stop. Resolves to the exit status of the last worker. */
  async run(): Promise<number> {
    const ticker = setInterval(() => {
      this.#tick();
    }, tickMs);
    this.#log.info(`To restart without losing a line: kill -HUP ${process.pid}`);
    process.on('SIGHUP', () => {
      this.#restart();
    });
    for (const signal of ['SIGTERM', 'SIGINT'] as const)
      process.on(signal, () => {
        this.#stop();
      });
    for (;;) {
      const status = await this.#runActive();
      if (!(await this.#replaceActive(status))) {
        clearInterval(ticker);
        this.#connections.close();
        return status;
      }
    }
  }

  /** Lets the active worker start once it is ready. Resolves to its exit status. */
  async #runActive(): Promise<number> {
    const worker = this.#active;
    void worker.ready.then((isReady) => {
      if (isReady) worker.send({ type: 'go', ports: this.#connections.ports, usedTimes: this.#usedTimes });
    });
    const status = await worker.ended;
    this.#log.debug('A worker has ended.', { pid: worker.pid, status });
    this.#connections.workerEnded(worker);
    return status;
  }

  /**
   * Makes another worker the active one after it has exited: the next one, or a new one after a crash. Resolves to
   * `false` after a stop, and if no worker has ever started.
   */
  async #replaceActive(status: number): Promise<boolean> {
    if (this.#next !== undefined) {
      if (status !== 0)
        this.#log.error('The old worker did not hand over cleanly: lines may be lost. The new one takes over.', {
          status,
        });
      this.#active = this.#next;
      this.#next = undefined;
      return true;
    }
    if (!this.#isStopped && this.#hasRun) await this.#backOff(status);
    if (this.#isStopped || !this.#hasRun) return false;
    this.#isRestartPending = false;
    this.#active = this.#startWorker();
    return true;
  }

  async #backOff(status: number): Promise<void> {
    const pauseMs = this.#active.uptimeMs > stableMsMin ? backoffMsMin : Math.min(2 * this.#backoffMs, backoffMsMax);
    this.#backoffMs = pauseMs;
    if (!this.#active.isKilled)
      this.#log.error(
        'The worker exited unexpectedly. Lines that it had read but not stored are lost. Its connections stay open; starting a new worker.',
        { status, pauseMs },
      );
    await pause(pauseMs, this.#stopped.signal);
  }

  get #isStopped(): boolean {
    return this.#stopped.signal.aborted;
  }

  #receive(worker: WorkerProcess, message: FromWorker): void {
    switch (message.type) {
      case 'ready':
        void this.#openAddresses(worker, message);
        break;
      case 'take':
        worker.takes.add(message.address);
        break;
      case 'running':
        this.#onRunning(worker);
        break;
      case 'pong':
        worker.answered();
        break;
      case 'sent-lines':
        this.#connections.sentLines(message.id);
        break;
      case 'closed':
        worker.held.delete(message.id);
        this.#connections.finish(message.id);
        break;
      case 'handed-back':
        worker.held.delete(message.id);
        this.#connections.takeBack(message.id, message.beginning);
        break;
      case 'done':
        this.#usedTimes = message.usedTimes;
    }
  }

  /** Opens the addresses of a worker's settings. At the first that fails, the worker gets the error and exits. */
  async #openAddresses(
    worker: WorkerProcess,
    { listen, unixMode, connectionsMax }: Extract<FromWorker, { type: 'ready' }>,
  ): Promise<void> {
    worker.addresses = listen.map(formatListenAddress);
    this.#connections.limit(connectionsMax);
    for (const address of listen) {
      try {
        await this.#connections.listen(address, unixMode);
      } catch (error) {
        worker.send({
          type: 'cannot-listen',
          address: formatListenAddress(address),
          code: (error as NodeJS.ErrnoException).code,
          message: messageOf(error),
        });
        return;
      }
    }
    worker.markReady();
  }

  #onRunning(worker: WorkerProcess): void {
    this.#log.debug('A worker is running.', { pid: worker.pid });
    this.#hasRun = true;
    worker.markRunning();
    this.#connections.passTo(worker);
    this.#closeUnwanted();
    if (this.#isStopped) this.#end(worker);
    else if (this.#isRestartPending) this.#restart();
  }

  #tick(): void {
    const passedMs = this.#clock.tick();
    const workers = this.#workers;
    for (const worker of workers) this.#watch(worker, passedMs);
    this.#connections.tick(
      passedMs,
      workers.find((worker) => worker.isKilled),
    );
  }

  get #workers(): WorkerProcess[] {
    return this.#next === undefined ? [this.#active] : [this.#active, this.#next];
  }

  /** Pings a worker and kills it if it does not answer. */
  #watch(worker: WorkerProcess, passedMs: number): void {
    const silentMs = worker.ping(passedMs);
    if (silentMs === undefined) return;
    this.#log.error(
      'The worker does not answer: it was stopped, or hangs. Killing it so that Caddy does not block. Lines that it had read but not stored are lost. Its connections stay open; starting a new worker.',
      { pid: worker.pid, silentMs: Math.round(silentMs), connections: worker.held.size },
    );
    this.#connections.startUnread(silentMs);
    worker.killSilent();
  }

  /** SIGHUP: starts a new worker, which takes over if its settings are valid. */
  #restart(): void {
    if (this.#isStopped) return;
    this.#isRestartPending = this.#next !== undefined || !this.#active.isRunning;
    if (this.#isRestartPending) return;
    const worker = (this.#next = this.#startWorker());
    void worker.ready.then((isReady) => {
      if (this.#next !== worker) return; // the old worker has exited, and this one has already replaced it
      if (isReady) this.#handOver(this.#active);
      else this.#abandonRestart();
    });
  }

  /** Stops the old worker, which hands its connections back for the next one. */
  #handOver(old: WorkerProcess): void {
    this.#connections.startUnread();
    old.requestStop({ handBack: true });
    const killer = setTimeout(() => {
      old.terminate();
    }, handOverMsMax);
    void old.ended.then(() => {
      clearTimeout(killer);
    });
  }

  #abandonRestart(): void {
    this.#next = undefined;
    this.#closeUnwanted();
    if (!this.#isStopped)
      this.#log.error(
        'The new worker did not start: see its own message. The old one keeps running. Fix the cause and send SIGHUP again.',
      );
    if (this.#isRestartPending) this.#restart();
  }

  /** SIGTERM and SIGINT: reads and stores what has arrived. A second signal exits immediately. */
  #stop(): void {
    if (this.#isStopped) {
      for (const worker of this.#workers) worker.terminate();
      process.exit(1);
    }
    this.#stopped.abort();
    if (!this.#active.isStopping) this.#next?.terminate(); // it has no connections yet
    this.#connections.stopListening();
    // A starting worker is stopped once it runs.
    if (this.#active.isRunning && !this.#active.isStopping) this.#end(this.#active);
  }

  /** Stops a worker and closes this process's descriptors, so that the worker closes the connections itself. */
  #end(worker: WorkerProcess): void {
    worker.requestStop({ handBack: false }, () => {
      this.#connections.closeAll();
    });
  }

  /** Closes addresses that are no longer in the settings. */
  #closeUnwanted(): void {
    this.#connections.closeUnwanted(new Set(this.#workers.flatMap(({ addresses }) => addresses)));
  }
}
