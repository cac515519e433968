/** A descriptor with one owner: closed when disposed, unless it was given away. */
import { closeSync } from 'node:fs';

export class OwnedFd implements Disposable {
  #fd: number | null;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** The descriptor's new owner closes it. */
  give(): number {
    const fd = this.#fd;
    if (fd === null) throw new Error('the descriptor was closed or given away already');
    this.#fd = null;
    return fd;
  }

  [Symbol.dispose](): void {
    if (this.#fd !== null) closeSync(this.#fd);
    this.#fd = null;
  }
}
