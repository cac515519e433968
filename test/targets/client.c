/*
 * Purpose: many clients of server.c in one process; measures what a move looks like from their side.
 *
 * Prints {"event":"connected",...} when all connections stand, {"event":"marked"} on SIGUSR1 (silences count from
 * there on) and, after --duration or SIGTERM, one JSON summary. Exit status 1 if anything was lost, wrong or corrupt.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "client-connect.h"
#include "protocol.h"

enum { MAX_CONNECTIONS = 4096, MAX_HOSTS = 8, WINDOW = 256 };

struct client {
  int fd;
  bool dead;
  uint64_t id;
  uint64_t sent;     /* sequence of the last request */
  uint64_t received; /* sequence of the last reply */
  uint64_t chain;    /* what the server's chain must be after `received` */
  uint64_t due;      /* when the next request leaves; UINT64_MAX: after a reply */
  uint64_t last_reply;
  uint64_t silence;  /* longest time between two replies since the mark */
  uint64_t latency;  /* longest time from request to reply since the mark */
  uint64_t sent_at[WINDOW];
  size_t in_length;
  struct reply in;
  int local_port;
};

static const char *address;
static long port = 7000;
static long connections = 1;
static long think_ms;
static long duration_s;
static long drain_ms = 3000;
static bool open_loop;
static bool connect_loop;
static bool verify_at_end;

static struct client *all;
static int epoll;
static bool stopping;
static uint64_t mark;
static unsigned long requests, errors, corrupt, lost;
static struct {
  char name[33];
  unsigned long answers;
} hosts[MAX_HOSTS];
static char first_error[160];

static void parse_address(const char *value) { address = value; }
static void parse_port(const char *value) { port = target_number(value, 1, 65535); }
static void parse_connections(const char *value) { connections = target_number(value, 0, MAX_CONNECTIONS); }
static void parse_think(const char *value) { think_ms = target_number(value, 0, 3600000); }
static void parse_duration(const char *value) { duration_s = target_number(value, 1, 86400); }
static void parse_drain(const char *value) { drain_ms = target_number(value, 0, 600000); }
static void parse_mode(const char *value) {
  open_loop = strcmp(value, "open") == 0;
  if (!open_loop && strcmp(value, "closed") != 0) target_usage("--mode is closed or open");
}
static void parse_connect_loop(const char *value) {
  (void)value;
  connect_loop = true;
}
static void parse_verify(const char *value) {
  (void)value;
  verify_at_end = true;
}

static const struct target_option options[] = {
  {"address", "IP", "the server, IPv4 or IPv6", parse_address},
  {"port", "N", "its TCP port (default 7000)", parse_port},
  {"connections", "N", "connections to keep (default 1)", parse_connections},
  {"mode", "closed|open", "closed: next request after the reply; open: every --think-ms (default closed)", parse_mode},
  {"think-ms", "N", "pause of a closed loop, period of an open one (default 0)", parse_think},
  {"connect-loop", NULL, "beside it keep connecting anew: one request, close", parse_connect_loop},
  {"duration", "S", "end after so many seconds (default: on SIGTERM)", parse_duration},
  {"drain-ms", "N", "wait so long at the end for replies that are due (default 3000)", parse_drain},
  {"verify-at-end", NULL, "have the server verify its memory, over a new connection", parse_verify},
  {NULL, NULL, NULL, NULL},
};

static void note_error(const char *what, const struct client *client, int error) {
  if (first_error[0] != '\0') return;
  snprintf(first_error, sizeof first_error, "%s on connection %lu after reply %lu: %s", what,
           client == NULL ? 0UL : (unsigned long)client->id, client == NULL ? 0UL : (unsigned long)client->received,
           error == 0 ? "closed by the server" : strerror(error));
}

static void give_up(struct client *client, const char *what, int error) {
  errors++;
  note_error(what, client, error);
  client->dead = true;
  close(client->fd);
}

static void count_host(const char *name) {
  for (int i = 0; i < MAX_HOSTS; i++) {
    if (hosts[i].answers > 0 && strncmp(hosts[i].name, name, 32) != 0) continue;
    if (hosts[i].answers++ == 0) snprintf(hosts[i].name, sizeof hosts[i].name, "%.32s", name);
    return;
  }
}

static void send_request(struct client *client, uint64_t now) {
  struct request request = client_request(OP_ECHO, client->id, ++client->sent);
  client->sent_at[client->sent % WINDOW] = now;
  if (open_loop) {
    client->due += (uint64_t)(think_ms > 0 ? think_ms : 1) * 1000000;
    /* The window bounds what is outstanding; requests that did not leave are not made up for. */
    if (client->sent - client->received >= WINDOW - 1 || client->due < now) client->due = now + 1000000;
  } else {
    client->due = UINT64_MAX;
  }
  ssize_t sent = send(client->fd, &request, sizeof request, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent != (ssize_t)sizeof request) give_up(client, "send", sent < 0 ? errno : EAGAIN);
}

static void take_reply(struct client *client, uint64_t now) {
  const struct reply *reply = &client->in;
  struct request request = client_request(OP_ECHO, client->id, client->received + 1);
  uint64_t chain = chain_next(client->chain, &request);
  if (reply->magic != PROTOCOL_MAGIC || reply->connection != client->id || reply->sequence != client->received + 1 ||
      reply->check != chain || reply->status != 0 || reply->op != OP_ECHO) {
    corrupt++;
    give_up(client, "wrong reply", EBADMSG);
    return;
  }
  client->chain = chain;
  client->received++;
  requests++;
  count_host(reply->host);
  uint64_t asked = client->sent_at[client->received % WINDOW];
  uint64_t since = client->last_reply > mark ? client->last_reply : mark;
  if (now - since > client->silence) client->silence = now - since;
  if (asked < mark) asked = mark;
  if (now - asked > client->latency) client->latency = now - asked;
  client->last_reply = now;
  if (!open_loop) client->due = now + (uint64_t)think_ms * 1000000;
}

static void receive(struct client *client, uint64_t now) {
  while (!client->dead) {
    ssize_t got = recv(client->fd, (char *)&client->in + client->in_length, sizeof client->in - client->in_length,
                       MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
      give_up(client, "receive", got == 0 ? 0 : errno);
      return;
    }
    client->in_length += (size_t)got;
    if (client->in_length < sizeof client->in) continue;
    client->in_length = 0;
    take_reply(client, now);
    if (!stopping && !open_loop && think_ms == 0 && !client->dead) send_request(client, now);
  }
}

static void connect_all(void) {
  all = calloc((size_t)connections + 1, sizeof *all);
  if (all == NULL) target_die("connections");
  for (long i = 0; i < connections; i++) {
    struct client *client = &all[i];
    client->id = ((uint64_t)getpid() << 32) + (uint64_t)i + 1;
    client->fd = client_connect(address, port, 10000);
    if (client->fd < 0) target_die("connect %ld to %s port %ld", i, address, port);
    client->local_port = client_local_port(client->fd);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, client->fd, &event) != 0) target_die("epoll_ctl");
  }
  mark = target_now();
  for (long i = 0; i < connections; i++) {
    /* Open-loop clients are spread over the period, so that they do not beat in one rhythm. */
    uint64_t shift = think_ms > 0 ? (uint64_t)think_ms * 1000000 * (uint64_t)i / (uint64_t)connections : 0;
    all[i].due = mark + shift;
    all[i].last_reply = mark;
  }
}

static uint64_t send_what_is_due(uint64_t now) {
  uint64_t next = UINT64_MAX;
  for (long i = 0; i < connections; i++) {
    if (all[i].dead || stopping) continue;
    if (all[i].due <= now) send_request(&all[i], now);
    if (!all[i].dead && all[i].due < next) next = all[i].due;
  }
  return next;
}

static bool all_answered(void) {
  for (long i = 0; i < connections; i++)
    if (!all[i].dead && all[i].received < all[i].sent) return false;
  return true;
}

static void set_mark(uint64_t now) {
  mark = now;
  for (long i = 0; i < connections; i++) all[i].silence = all[i].latency = 0;
  printf("{\"event\":\"marked\"}\n");
}

static void run(int signals) {
  uint64_t end = duration_s > 0 ? target_now() + (uint64_t)duration_s * 1000000000ULL : UINT64_MAX;
  struct epoll_event events[256];
  for (;;) {
    uint64_t now = target_now();
    if (!stopping && now >= end) {
      stopping = true;
      end = now + (uint64_t)drain_ms * 1000000;
    }
    if (stopping && (now >= end || all_answered())) return;
    uint64_t next = send_what_is_due(now);
    if (end < next) next = end;
    uint64_t pause = next == UINT64_MAX ? 0 : next > now ? next - now : 0;
    struct timespec timeout = {(time_t)(pause / 1000000000ULL), (long)(pause % 1000000000ULL)};
    int count = epoll_pwait2(epoll, events, 256, next == UINT64_MAX ? NULL : &timeout, NULL);
    now = target_now();
    for (int i = 0; i < count; i++) {
      if (events[i].data.ptr != NULL) {
        struct client *client = events[i].data.ptr;
        if (!client->dead) receive(client, now);
        continue;
      }
      struct signalfd_siginfo order;
      while (read(signals, &order, sizeof order) == sizeof order) {
        if (order.ssi_signo == SIGUSR1) set_mark(now);
        else if (!stopping) {
          stopping = true;
          end = now + (uint64_t)drain_ms * 1000000;
        }
      }
    }
  }
}

static int by_size(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

/* Prints the list `key` in milliseconds with its median and maximum. `of`: where the value lies in a client. */
static void print_times(const char *key, size_t of, uint64_t *sorted) {
  printf(",\"%s\":[", key);
  for (long i = 0; i < connections; i++) {
    memcpy(&sorted[i], (char *)&all[i] + of, sizeof *sorted);
    printf("%s%.2f", i == 0 ? "" : ",", (double)sorted[i] / 1e6);
  }
  qsort(sorted, (size_t)connections, sizeof *sorted, by_size);
  double middle = connections == 0 ? 0 : (double)sorted[(connections - 1) / 2] / 1e6;
  double worst = connections == 0 ? 0 : (double)sorted[connections - 1] / 1e6;
  printf("],\"%s_p50\":%.2f,\"%s_max\":%.2f", key, middle, key, worst);
}

static void print_ports(const char *key, bool alive_only) {
  printf("\"%s\":[", key);
  const char *comma = "";
  for (long i = 0; i < connections; i++) {
    if (alive_only && all[i].dead) continue;
    printf("%s%d", comma, alive_only ? client_local_port(all[i].fd) : all[i].local_port);
    comma = ",";
  }
  printf("]");
}

static bool print_summary(const struct connect_loop_result *fresh, long bad_pages) {
  uint64_t now = target_now();
  uint64_t *sorted = calloc((size_t)connections + 1, sizeof *sorted);
  if (sorted == NULL) target_die("summary");
  for (long i = 0; i < connections; i++) {
    lost += all[i].sent - all[i].received;
    /* A connection that never spoke again was silent until now. */
    uint64_t since = all[i].last_reply > mark ? all[i].last_reply : mark;
    if ((all[i].dead || all[i].sent > all[i].received) && now - since > all[i].silence) all[i].silence = now - since;
  }
  printf("{\"event\":\"summary\",\"connections\":%ld,\"lost\":%lu,\"errors\":%lu,\"requests\":%lu,\"corrupt\":%lu",
         connections, lost, errors, requests, corrupt);
  print_times("silence_ms", offsetof(struct client, silence), sorted);
  print_times("latency_ms", offsetof(struct client, latency), sorted);
  printf(",\"hosts\":{");
  for (int i = 0; i < MAX_HOSTS && hosts[i].answers > 0; i++)
    printf("%s\"%s\":%lu", i == 0 ? "" : ",", hosts[i].name, hosts[i].answers);
  printf("},\"new_connections\":{\"ok\":%lu,\"failed\":%lu,\"max_ms\":%.2f},", fresh->ok, fresh->failed,
         (double)fresh->longest / 1e6);
  print_ports("ports", true);
  if (verify_at_end && bad_pages >= 0) printf(",\"bad_pages\":%ld", bad_pages);
  else printf(",\"bad_pages\":null");
  if (first_error[0] == '\0') printf(",\"first_error\":null}\n");
  else printf(",\"first_error\":\"%s\"}\n", first_error);
  free(sorted);
  return lost == 0 && errors == 0 && corrupt == 0 && (!verify_at_end || bad_pages == 0);
}

int main(int argc, char **argv) {
  target_begin(argc, argv, "clients of the server target; measure what a move looks like to them", options);
  if (address == NULL) target_usage("--address is needed");
  setvbuf(stdout, NULL, _IOLBF, 0);
  sigset_t orders;
  sigemptyset(&orders);
  sigaddset(&orders, SIGUSR1);
  sigaddset(&orders, SIGTERM);
  sigaddset(&orders, SIGINT);
  sigprocmask(SIG_BLOCK, &orders, NULL);
  int signals = signalfd(-1, &orders, SFD_CLOEXEC | SFD_NONBLOCK);
  epoll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
  if (signals < 0 || epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, signals, &event) != 0) target_die("epoll");
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);

  connect_all();
  printf("{\"event\":\"connected\",\"connections\":%ld,", connections);
  print_ports("ports", false);
  printf("}\n");
  if (connect_loop) connect_loop_start(address, port);
  run(signals);
  struct connect_loop_result fresh = connect_loop_stop();
  long bad_pages = verify_at_end ? client_ask_for_bad_pages(address, port) : -1;
  return print_summary(&fresh, bad_pages) ? 0 : 1;
}
