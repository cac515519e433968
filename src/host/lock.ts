/** One owner per migration (dangers.md 6): an flock that the kernel gives back when its owner dies, however it dies. */
import { closeSync, openSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { addon } from '../native/addon.js';

export class MigrationLock implements Disposable {
  #fd: number | null;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** Null when somebody else holds it. */
  static async tryTake(folder: string): Promise<MigrationLock | null> {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const fd = openSync(join(folder, 'lock'), 'a', 0o600);
    if (addon().flock(fd)) return new MigrationLock(fd);
    closeSync(fd);
    return null;
  }

  [Symbol.dispose](): void {
    if (this.#fd !== null) closeSync(this.#fd);
    this.#fd = null;
  }
}
