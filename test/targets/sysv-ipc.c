/*
 * Purpose: System V shared memory, semaphores and message queues. The tree must have an IPC namespace of its own
 * (unshare -i), else CRIU refuses it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <unistd.h>

#include "common.h"

enum { PAGES = 32 };

struct note {
  long type;
  char text[16];
};

static int segment, semaphores, queue;
static char *memory;

static void send_notes(void) {
  for (long type = 1; type <= 3; type++) {
    struct note note = {.type = type};
    snprintf(note.text, sizeof note.text, "note %ld", type);
    if (msgsnd(queue, &note, sizeof note.text, IPC_NOWAIT) != 0) target_die("msgsnd");
  }
}

int main(int argc, char **argv) {
  target_begin(argc, argv, "System V shared memory, semaphores, messages", NULL);
  uint64_t generation = 0;
  unsigned short values[3] = {5, 0, 7};
  segment = shmget(IPC_PRIVATE, PAGES * TARGET_PAGE, IPC_CREAT | 0600);
  semaphores = semget(0x70680001, 3, IPC_CREAT | 0600);
  queue = msgget(0x70680002, IPC_CREAT | 0600);
  if (segment < 0 || semaphores < 0 || queue < 0) target_die("System V IPC");
  memory = shmat(segment, NULL, 0);
  if (memory == (void *)-1 || semctl(semaphores, 0, SETALL, values) != 0) target_die("System V IPC");
  for (size_t i = 0; i < PAGES; i++) target_page_fill(memory + i * TARGET_PAGE, 7, i, generation);
  send_notes();
  target_ready();

  while (target_wait()) {
    struct shmid_ds facts;
    unsigned short now[3] = {0, 0, 0};
    for (size_t i = 0; i < PAGES; i++)
      if (!target_page_check(memory + i * TARGET_PAGE, 7, i, generation)) target_bad("shared memory: page %zu", i);
    generation++;
    for (size_t i = 0; i < PAGES; i++) target_page_fill(memory + i * TARGET_PAGE, 7, i, generation);
    if (shmctl(segment, IPC_STAT, &facts) != 0 || facts.shm_nattch != 1)
      target_bad("segment %d: %s, %lu attached", segment, strerror(errno), (unsigned long)facts.shm_nattch);
    if (semget(0x70680001, 3, 0600) != semaphores || semctl(semaphores, 0, GETALL, now) != 0 ||
        memcmp(now, values, sizeof now) != 0)
      target_bad("semaphores are %d,%d,%d", now[0], now[1], now[2]);
    for (long type = 1; type <= 3; type++) {
      struct note note;
      if (msgrcv(queue, &note, sizeof note.text, 0, IPC_NOWAIT) != sizeof note.text || note.type != type ||
          note.text[5] != '0' + type)
        target_bad("message %ld", type);
    }
    send_notes();
    target_ok("segment=%d semaphores=%d queue=%d", segment, semaphores, queue);
  }
  return 0;
}
