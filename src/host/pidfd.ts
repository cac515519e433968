/** A task by pidfd: it cannot be mistaken for another one that gets its pid later (pidfd_open(2), dangers.md 8, 21). */
import { closeSync } from 'node:fs';
import { errnoOf } from '../failure/phaul-error.js';
import type { TaskIdentity } from '../migration/ports.js';
import { addon } from '../native/addon.js';
import { isSameTask } from './tasks.js';

export class TaskHandle implements Disposable {
  readonly task: TaskIdentity;
  #pidfd: number | null;

  private constructor(task: TaskIdentity, pidfd: number) {
    this.task = task;
    this.#pidfd = pidfd;
  }

  /** Null when the task is gone or another one has its pid. */
  static open(task: TaskIdentity): TaskHandle | null {
    let pidfd: number;
    try {
      pidfd = addon().pidfdOpen(task.pid);
    } catch (thrown) {
      if (errnoOf(thrown) === 'ESRCH') return null;
      throw thrown;
    }
    // Opened first, compared afterwards: what the pidfd names cannot change any more.
    if (isSameTask(task)) return new TaskHandle(task, pidfd);
    closeSync(pidfd);
    return null;
  }

  /** pidfd_send_signal(2); false when the task has ended. */
  signal(signal: number): boolean {
    if (this.#pidfd === null) return false;
    try {
      addon().pidfdSignal(this.#pidfd, signal);
      return true;
    } catch (thrown) {
      if (errnoOf(thrown) === 'ESRCH') return false;
      throw thrown;
    }
  }

  /** pidfd_getfd(2): a duplicate of the task's descriptor, the caller's to close. */
  descriptor(fd: number): number {
    if (this.#pidfd === null) throw new Error('the handle is closed');
    return addon().pidfdGetfd(this.#pidfd, fd);
  }

  /** Resolves when the task has exited. */
  async exited(): Promise<void> {
    const pidfd = this.#pidfd;
    if (pidfd === null) return;
    await new Promise<void>((resolve) => {
      addon().exitWatch(pidfd, resolve);
    });
  }

  [Symbol.dispose](): void {
    if (this.#pidfd !== null) closeSync(this.#pidfd);
    this.#pidfd = null;
  }
}
