/*
 * Purpose: shows a limit of CRIU 4.2: an eventfd made with EFD_SEMAPHORE comes back without it.
 */
#define _GNU_SOURCE
#include <sys/eventfd.h>
#include <unistd.h>

#include "common.h"

int main(int argc, char **argv) {
  target_begin(argc, argv, "an eventfd with EFD_SEMAPHORE", NULL);
  int semaphore = eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC);
  if (semaphore < 0) target_die("eventfd");
  target_ready();
  while (target_wait()) {
    uint64_t value = 0;
    if (read(semaphore, &value, sizeof value) != sizeof value || value != 1)
      target_bad("a read takes %lu, not 1", (unsigned long)value);
    if (write(semaphore, &value, sizeof value) != sizeof value) target_bad("it cannot be written");
    target_ok("a read takes 1");
  }
  return 0;
}
