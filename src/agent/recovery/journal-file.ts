/** The journal of one migration on this host: `journal.jsonl` in the migration's folder. */
import { type FileHandle, mkdir, open, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { errnoOf, PhaulError } from '../../failure/phaul-error.js';
import { type Journal, type JournalEntry, type JournalRecord, parseJournal } from '../../migration/journal.js';
import { nowMs } from '../../migration/report.js';

const fileName = 'journal.jsonl';

export class JournalFile implements Journal, AsyncDisposable {
  readonly #file: FileHandle;
  #writing: Promise<void> = Promise.resolve();
  /** Behind the last whole record, bytes. */
  #end: number;

  private constructor(file: FileHandle, end: number) {
    this.#file = file;
    this.#end = end;
  }

  /** Creates the journal and makes its name durable; refuses an existing one. */
  static async create(folder: string): Promise<JournalFile> {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const file = await open(join(folder, fileName), 'ax', 0o600);
    // Without this a power cut can lose the file with all its synced records (fsync(2), NOTES).
    for (const directory of [folder, dirname(folder)]) {
      await using handle = await open(directory, 'r');
      await handle.sync();
    }
    return new JournalFile(file, 0);
  }

  /** Opens an existing journal to go on with it. A torn last line is cut off: its step did not happen. */
  static async reopen(folder: string): Promise<JournalFile> {
    const path = join(folder, fileName);
    const text = await readFile(path, 'utf8');
    const file = await open(path, 'a', 0o600);
    const end = Buffer.byteLength(text.slice(0, text.lastIndexOf('\n') + 1));
    await file.truncate(end);
    return new JournalFile(file, end);
  }

  /** Durable when it returns: fdatasync(2), about 0.2 ms. Records are written in the order of the calls. */
  write(entry: JournalEntry): Promise<void> {
    const line = `${JSON.stringify({ ...entry, at: nowMs() })}\n`;
    const written = this.#writing.then(async () => {
      try {
        await this.#file.appendFile(line);
        await this.#file.datasync();
        this.#end += Buffer.byteLength(line);
      } catch (cause) {
        // A half-written line would make one broken line with the next record, and the whole journal unreadable.
        // When even that fails the disk is lost, and `cause` says so.
        await this.#file.truncate(this.#end).catch(() => undefined);
        throw cause;
      }
    });
    // The next record must not be refused because this one failed: the caller of this one is told.
    this.#writing = written.catch(() => undefined);
    return written.catch((cause: unknown) => {
      throw new PhaulError({
        code: 'journal-write-failed',
        what: `the journal could not be written (${entry.record})`,
        remedy: 'make room on, or repair, the file system that holds the state folder',
        cause,
      });
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writing;
    await this.#file.close();
  }
}

/** All records of a migration's journal; empty when there is none. */
export async function readJournal(folder: string): Promise<JournalRecord[]> {
  try {
    return parseJournal(await readFile(join(folder, fileName), 'utf8'));
  } catch (thrown) {
    if (errnoOf(thrown) === 'ENOENT') return [];
    throw new PhaulError({
      code: 'journal-unreadable',
      what: `the journal in ${folder} cannot be read`,
      remedy: 'look at it by hand before anything is cleaned: it says who owns the process',
      cause: thrown,
    });
  }
}
