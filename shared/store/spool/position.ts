import { constants } from 'node:fs';
import { open, readFile, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf } from '../../errors.js';
import type { Log } from '../../log.js';
import { isAt, writeFully } from './folder.js';
import { checksumOf } from './record.js';

/** A place between two records of a spool. */
export interface Position {
  readonly segment: number;
  readonly offset: number;
  /** Requests in all records before it. */
  readonly requests: number;
}

/**
 * The file `position` of a spool: up to where records are delivered. It is written some time after the delivery, so
 * that after a crash some records are delivered again.
 */
export class PositionFile {
  readonly #dir: string;
  readonly #log: Log;
  #file: FileHandle;
  #position: Position | undefined;
  #isDirty = false;

  private constructor(dir: string, log: Log, file: FileHandle, position: Position | undefined) {
    this.#dir = dir;
    this.#log = log;
    this.#file = file;
    this.#position = position;
  }

  /** Opens the file and reads it. Creates it if it is missing. Throws the system's error. */
  static async open(dir: string, log: Log): Promise<PositionFile> {
    const file = await openFile(dir);
    return new PositionFile(dir, log, file, parsePosition(await file.readFile('latin1')));
  }

  /** The newest position; `undefined` if the file is new or damaged. */
  get position(): Position | undefined {
    return this.#position;
  }

  /** Sets where reading begins, which need not be written. */
  beginAt(position: Position): void {
    this.#position = position;
  }

  /** Sets up to where records are delivered. `write` writes it. */
  moveTo(position: Position): void {
    this.#position = position;
    this.#isDirty = true;
  }

  /** Overwrites the position in place, if it has changed, with a fixed length, so that it works on a full disk. */
  async write(): Promise<void> {
    if (!this.#isDirty || this.#position === undefined) return;
    this.#isDirty = false;
    try {
      await writeFully(this.#file, [positionText(this.#position)], 0);
    } catch (error) {
      this.#isDirty = true;
      this.#log.warn(
        `Cannot write the position of the spool in ${this.#dir}: ${messageOf(error)}. After a crash, more requests are delivered twice, which is harmless.`,
      );
    }
  }

  /** Whether the path still names the open file. */
  async isInPlace(): Promise<boolean> {
    return await isAt(this.#file, pathOf(this.#dir));
  }

  /** Creates the file again if it was removed or replaced. `write` fills it. Throws the system's error. */
  async restore(): Promise<void> {
    if (await this.isInPlace()) return;
    const created = await openFile(this.#dir);
    await this.#file.close();
    this.#file = created;
    this.#isDirty = true;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

/** Reads the position of a spool that another process may be using; `undefined` if there is none or it is damaged. */
export async function readPosition(dir: string): Promise<Position | undefined> {
  return parsePosition(await readFile(pathOf(dir), 'latin1').catch(() => ''));
}

function pathOf(dir: string): string {
  return join(dir, 'position');
}

async function openFile(dir: string): Promise<FileHandle> {
  return await open(pathOf(dir), constants.O_RDWR | constants.O_CREAT, 0o600);
}

/** Has a fixed length, so that it can be overwritten: three numbers and the CRC-32C of their text. */
function positionText({ segment, offset, requests }: Position): Buffer {
  const numbers = [segment, offset, requests].map((number) => String(number).padStart(16, '0')).join(' ');
  return Buffer.from(`${numbers} ${checksumOf(Buffer.from(numbers)).toString(16).padStart(8, '0')}\n`);
}

function parsePosition(text: string): Position | undefined {
  const match = /^(\d{16}) (\d{16}) (\d{16}) [\da-f]{8}\n$/.exec(text);
  if (match === null) return undefined;
  const position = { segment: Number(match[1]), offset: Number(match[2]), requests: Number(match[3]) };
  return positionText(position).toString('latin1') === text ? position : undefined;
}
