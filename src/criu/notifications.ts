/** Moments at which CRIU stops and asks (criu(8), action scripts), and what it can be told. */

export type NotifyScript =
  | 'pre-stream'
  | 'pre-dump'
  | 'post-dump'
  | 'pre-restore'
  | 'post-restore'
  | 'network-lock'
  | 'network-unlock'
  | 'setup-namespaces'
  | 'post-setup-namespaces'
  | 'pre-resume'
  | 'post-resume'
  | 'orphan-pts-master'
  | 'status-ready'
  | 'query-ext-files';

export interface CriuNotification {
  readonly script: NotifyScript;
  /** Root of the restored tree, where CRIU tells it. */
  readonly pid: number | null;
  /** Descriptors that came along (`orphan-pts-master`); now the handler's. */
  readonly fds: readonly number[];
}

export interface NotifyAnswer {
  /** False before the tasks run: CRIU undoes what it has done. In `pre-resume` and later CRIU ignores it. */
  readonly success: boolean;
  /** Only in `query-ext-files`: more external resources. */
  readonly external?: readonly string[];
}

/** Throwing is a refusal, and what was thrown is thrown by the request. */
export type NotifyHandler = (notification: CriuNotification) => NotifyAnswer | Promise<NotifyAnswer>;
