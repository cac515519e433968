/* See client-connect.h. */
#define _GNU_SOURCE
#include "client-connect.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Between two connections of the loop: 200 a second leave room in the port range (TIME_WAIT is 60 s). */
static const struct timespec loop_pause = {0, 5 * 1000 * 1000};

static pthread_t loop_thread;
static bool loop_started;
static atomic_bool loop_ends;
static const char *loop_address;
static long loop_port;
static struct connect_loop_result result;

int client_connect(const char *address, long port, int timeout_ms) {
  struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
  struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  bool is_four = inet_pton(AF_INET, address, &four.sin_addr) == 1;
  if (!is_four && inet_pton(AF_INET6, address, &six.sin6_addr) != 1) target_usage("%s is not an IP address", address);
  int fd = socket(is_four ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  struct timeval limit = {timeout_ms / 1000, (timeout_ms % 1000) * 1000};
  int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit); /* bounds connect() too: socket(7) */
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  int failed = is_four ? connect(fd, (struct sockaddr *)&four, sizeof four)
                       : connect(fd, (struct sockaddr *)&six, sizeof six);
  if (failed == 0) return fd;
  int error = errno;
  close(fd);
  errno = error;
  return -1;
}

int client_local_port(int fd) {
  struct sockaddr_storage name;
  socklen_t length = sizeof name;
  if (getsockname(fd, (struct sockaddr *)&name, &length) != 0) return -1;
  return name.ss_family == AF_INET ? ntohs(((struct sockaddr_in *)&name)->sin_port)
                                   : ntohs(((struct sockaddr_in6 *)&name)->sin6_port);
}

struct request client_request(uint32_t op, uint64_t connection, uint64_t sequence) {
  struct request request = {.magic = PROTOCOL_MAGIC, .op = op, .connection = connection, .sequence = sequence};
  request.check = request_check(&request);
  return request;
}

/* One request over a new connection. */
static bool ask_once(const char *address, long port, uint32_t op, int timeout_ms, struct reply *reply) {
  static atomic_ulong serial;
  int fd = client_connect(address, port, timeout_ms);
  if (fd < 0) return false;
  uint64_t id = (1ULL << 63) + ((uint64_t)getpid() << 32) + atomic_fetch_add(&serial, 1);
  struct request request = client_request(op, id, 1);
  bool answered = send(fd, &request, sizeof request, MSG_NOSIGNAL) == (ssize_t)sizeof request &&
                  target_read_all(fd, reply, sizeof *reply) && reply->magic == PROTOCOL_MAGIC &&
                  reply->connection == id && reply->status == 0 && reply->check == chain_next(0, &request);
  close(fd);
  return answered;
}

long client_ask_for_bad_pages(const char *address, long port) {
  struct reply reply;
  return ask_once(address, port, OP_VERIFY, 120000, &reply) ? (long)reply.value : -1;
}

static void *keep_connecting(void *unused) {
  (void)unused;
  while (!atomic_load(&loop_ends)) {
    struct reply reply;
    uint64_t start = target_now();
    bool answered = ask_once(loop_address, loop_port, OP_ECHO, 10000, &reply);
    uint64_t took = target_now() - start;
    *(answered ? &result.ok : &result.failed) += 1;
    if (took > result.longest) result.longest = took;
    nanosleep(&loop_pause, NULL);
  }
  return NULL;
}

void connect_loop_start(const char *address, long port) {
  loop_address = address;
  loop_port = port;
  loop_started = pthread_create(&loop_thread, NULL, keep_connecting, NULL) == 0;
  if (!loop_started) target_die("connect loop");
}

struct connect_loop_result connect_loop_stop(void) {
  if (!loop_started) return (struct connect_loop_result){0, 0, 0};
  atomic_store(&loop_ends, true);
  pthread_join(loop_thread, NULL);
  return result;
}
