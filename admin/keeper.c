/* SPDX-License-Identifier: BSD-3-Clause */
/* The keeper, as keeper.h says.  It must not wait for the disk that it keeps: it writes only to its
 * own directory, and asks the kernel for no memory that would have to be written out first.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libnbd.h>
#include <linux/nbd.h>

#include "admin/keeper.h"
#include "admin/nbdnl.h"
#include "common/clock.h"
#include "common/exitcodes.h"
#include "common/jsonl.h"
#include "common/util-posix.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

struct keeper {
  const struct keeper_spec *spec;
  char nbd_path[CRG_PATH_MAX + 32], status_path[CRG_PATH_MAX + 32], state_path[CRG_PATH_MAX + 32];
  char client[CRG_NAME_MAX + 1], identifier[CRG_NAME_MAX + 16];
  struct nbdnl *nl;
  struct nbdnl_device device; /* index < 0: not attached yet */
  pid_t proxy;                /* 0: none runs */
  int adopted_fd;             /* pidfd of one that a keeper before us had started; -1: it is a child */
  uint64_t started_ms, restart_at_ms, restart_ms;
  uint64_t unwell_since_ms;   /* it answers nothing; 0: it does */
  bool dead_link;             /* the kernel has lost a connection */
  uint64_t relink_at_ms;
  int signal_fd;
  bool ending;
  bool giving_up;             /* not to detach what a keeper before us had attached */
  bool held;                  /* the device is attached, and ours */
  bool found;                 /* by a keeper before us */
  bool ready;                 /* whoever waits for the device was told */
};

UTIL_PRINTF (1, 2)
static void
say (const char *fmt, ...)
{
  char line[1024];
  va_list ap;

  va_start (ap, fmt);
  vsnprintf (line, sizeof line, fmt, ap);
  va_end (ap);
  fprintf (stderr, "crgctl attach: %s\n", line);
}

/* READY=1 to a service manager that waits for it, as sd_notify(3) says. */
static void
tell_ready (void)
{
  struct sockaddr_un sun = { .sun_family = AF_UNIX };
  const char *path = getenv ("NOTIFY_SOCKET");
  size_t len = path ? strlen (path) : 0;
  CLEANUP_CLOSE int fd = -1;

  if ((len > 0 && path[0] != '/' && path[0] != '@') || len == 0 || len >= sizeof sun.sun_path)
    return;
  memcpy (sun.sun_path, path, len);
  if (path[0] == '@')
    sun.sun_path[0] = '\0';
  fd = socket (AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0
      || sendto (fd, "READY=1", 7, MSG_NOSIGNAL, (struct sockaddr *) &sun,
                 (socklen_t) (offsetof (struct sockaddr_un, sun_path) + len)) < 0)
    say ("the service manager can't be told: %s", strerror (errno));
}

/* ---- the directory ------------------------------------------------------------------------ */

static void
file_in (char *to, size_t size, const char *dir, const char *name)
{
  snprintf (to, size, "%s/%s", dir, name);
}

pid_t
keeper_pid (const char *dir)
{
  struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
  char path[CRG_PATH_MAX + 32];
  CLEANUP_CLOSE int fd = -1;

  file_in (path, sizeof path, dir, "lock");
  fd = open (path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0 || fcntl (fd, F_GETLK, &fl) < 0 || fl.l_type == F_UNLCK)
    return 0;
  return fl.l_pid;
}

/* Held to the end of the process. */
static int
take_lock (const char *dir)
{
  struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
  char path[CRG_PATH_MAX + 32];
  int fd;

  file_in (path, sizeof path, dir, "lock");
  fd = open (path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0)
    return -errno;
  return fcntl (fd, F_SETLK, &fl) < 0 ? -EBUSY : fd;
}

json_t *
keeper_read (const char *dir)
{
  char path[CRG_PATH_MAX + 32];
  json_error_t error;

  file_in (path, sizeof path, dir, "attach.json");
  return json_load_file (path, 0, &error);
}

static int
write_attach (const struct keeper *k, bool ready)
{
  char path[CRG_PATH_MAX + 32], next[CRG_PATH_MAX + 40], device[32] = "";
  json_t *o;
  int r;

  if (k->device.index >= 0)
    snprintf (device, sizeof device, "/dev/nbd%d", k->device.index);
  o = json_pack ("{s:s, s:s, s:i, s:s, s:s, s:b, s:i}", "iasp", k->spec->iasp, "device", device, "index",
                 k->device.index, "nodes", k->spec->nodes, "client", k->client, "ready", ready, "keeper",
                 (int) getpid ());
  file_in (path, sizeof path, k->spec->dir, "attach.json");
  snprintf (next, sizeof next, "%s.new", path);
  r = o && json_dump_file (o, next, JSON_COMPACT) == 0 && rename (next, path) == 0 ? 0 : -1;
  json_decref (o);
  if (r < 0)
    say ("%s can't be written: %s", path, strerror (errno));
  return r;
}

int
keeper_device_index (const char *device)
{
  const char *s = strncmp (device, "/dev/", 5) == 0 ? device + 5 : device;
  char *end;
  long n;

  if (strncmp (s, "nbd", 3) != 0 || s[3] < '0' || s[3] > '9')
    return -1;
  n = strtol (s + 3, &end, 10);
  return *end || n > 1023 ? -1 : (int) n;
}

/* A word of the kernel on a device. */
static bool
read_sys (int index, const char *name, char *to, size_t size)
{
  char path[64];
  CLEANUP_CLOSE int fd = -1;
  ssize_t n;

  snprintf (path, sizeof path, "/sys/block/nbd%d/%s", index, name);
  fd = open (path, O_RDONLY | O_CLOEXEC);
  n = fd < 0 ? -1 : read (fd, to, size - 1);
  if (n < 0)
    return false;
  to[n] = '\0';
  to[strcspn (to, "\n")] = '\0';
  return true;
}

bool
keeper_device_is_attached (int index)
{
  char text[32];

  return read_sys (index, "pid", text, sizeof text);
}

/* Ours, of a keeper before this one? */
static bool
is_ours (const struct keeper *k, int index)
{
  char text[sizeof k->identifier + 1];

  return keeper_device_is_attached (index) && read_sys (index, "backend", text, sizeof text)
         && strcmp (text, k->identifier) == 0;
}

json_t *
keeper_proxy_status (const char *dir, int timeout_ms)
{
  char path[CRG_PATH_MAX + 32];
  struct jsonl_reader r;
  CLEANUP_CLOSE int fd = -1;
  json_t *o = NULL;

  file_in (path, sizeof path, dir, "proxy.status");
  fd = jsonl_connect (path, timeout_ms);
  if (fd < 0)
    return NULL;
  jsonl_reader_init (&r, 0);
  if (jsonl_receive (fd, &r, timeout_ms, &o) < 0)
    o = NULL;
  jsonl_reader_free (&r);
  return o;
}

/* Who listens there, if anybody does; also one that says nothing. */
static pid_t
proxy_pid (const char *dir)
{
  char path[CRG_PATH_MAX + 32];
  CLEANUP_CLOSE int fd = -1;
  pid_t pid;

  file_in (path, sizeof path, dir, "proxy.status");
  fd = jsonl_connect (path, 1000);
  return fd >= 0 && jsonl_peer (fd, &pid, NULL, NULL) == 0 ? pid : 0;
}

void
keeper_clear (const char *dir)
{
  static const char *const names[] = { "attach.json", "proxy.state", "proxy.nbd", "proxy.status" };
  pid_t pid = proxy_pid (dir);
  char path[CRG_PATH_MAX + 32];

  if (pid > 1)
    kill (pid, SIGKILL);
  for (unsigned i = 0; i < ARRAY_SIZE (names); i++) {
    file_in (path, sizeof path, dir, names[i]);
    unlink (path);
  }
}

/* ---- the proxy ---------------------------------------------------------------------------- */

static void
exec_proxy (const struct keeper *k)
{
  const struct keeper_spec *s = k->spec;
  char iasp[CRG_NAME_MAX + 8], client[CRG_NAME_MAX + 16], state[CRG_PATH_MAX + 48], status[CRG_PATH_MAX + 48];
  char connections[32];
  size_t n_nodes = strlen (s->nodes) + 8, n_tls = strlen (s->tls_dir ? s->tls_dir : "") + 24;
  char *nodes = malloc (n_nodes), *tls = malloc (n_tls);
  const char *argv[24];
  unsigned n = 0;
  sigset_t none;

  if (!nodes || !tls)
    _exit (126);
  snprintf (iasp, sizeof iasp, "iasp=%s", s->iasp);
  snprintf (nodes, n_nodes, "nodes=%s", s->nodes);
  snprintf (client, sizeof client, "client=%s", k->client);
  snprintf (state, sizeof state, "state=%s", k->state_path);
  snprintf (status, sizeof status, "status=%s", k->status_path);
  snprintf (connections, sizeof connections, "connections=%u", s->connections);
  argv[n++] = s->nbdkit;
  argv[n++] = "-f";
  argv[n++] = "-t";
  argv[n++] = "128"; /* the kernel's queue depth: each request has a thread to wait in (Y8) */
  argv[n++] = "-U";
  argv[n++] = k->nbd_path;
  argv[n++] = s->plugin;
  argv[n++] = iasp;
  argv[n++] = nodes;
  argv[n++] = client;
  argv[n++] = state;
  argv[n++] = status;
  argv[n++] = connections;
  if (s->tls_dir) {
    snprintf (tls, n_tls, "tls-certificates=%s", s->tls_dir);
    argv[n++] = tls;
  }
  argv[n] = NULL;
  sigemptyset (&none);
  sigprocmask (SIG_SETMASK, &none, NULL);
  unsetenv ("NOTIFY_SOCKET");
  execv (s->nbdkit, (char **) argv);
  fprintf (stderr, "crgctl attach: %s: %s\n", s->nbdkit, strerror (errno));
  _exit (127);
}

static void
start_proxy (struct keeper *k)
{
  unlink (k->nbd_path);
  k->started_ms = clock_boottime_ms ();
  k->unwell_since_ms = 0;
  k->proxy = fork ();
  if (k->proxy == 0)
    exec_proxy (k);
  if (k->proxy < 0) {
    say ("no process: %s", strerror (errno));
    k->proxy = 0;
    k->restart_at_ms = k->started_ms + 1000;
  }
}

static void
end_proxy (struct keeper *k)
{
  if (k->proxy == 0)
    return;
  kill (k->proxy, SIGKILL); /* it has nothing that is lost */
  if (k->adopted_fd >= 0)
    close (k->adopted_fd);
  else
    waitpid (k->proxy, NULL, 0);
  k->adopted_fd = -1;
  k->proxy = 0;
}

/* Has it ended?  Then it is forgotten. */
static bool
proxy_has_ended (struct keeper *k, int *status)
{
  struct pollfd pfd = { .fd = k->adopted_fd, .events = POLLIN };

  *status = 0;
  if (k->proxy == 0)
    return false;
  if (k->adopted_fd >= 0) {
    if (poll (&pfd, 1, 0) <= 0)
      return false;
    close (k->adopted_fd);
    k->adopted_fd = -1;
  }
  else if (waitpid (k->proxy, status, WNOHANG) != k->proxy)
    return false;
  k->proxy = 0;
  return true;
}

static uint64_t
hung_ms (void)
{
#ifdef CRG_TEST
  const char *played = getenv ("CRG_ATTACH_HUNG_MS");

  if (played)
    return strtoul (played, NULL, 10);
#endif
  return ATTACH_HUNG_MS;
}

/* A proxy that says nothing about itself for so long is ended, which is safe at any moment. */
static void
check_proxy (struct keeper *k)
{
  uint64_t now_ms = clock_boottime_ms ();
  json_t *o = k->proxy ? keeper_proxy_status (k->spec->dir, 1000) : NULL;

  if (o || k->proxy == 0)
    k->unwell_since_ms = 0;
  else if (k->unwell_since_ms == 0)
    k->unwell_since_ms = now_ms;
  else if (now_ms >= k->unwell_since_ms + hung_ms ()) {
    say ("%s: the proxy has said nothing for %u s and is ended", k->spec->iasp,
         (unsigned) ((now_ms - k->unwell_since_ms) / 1000));
    kill (k->proxy, SIGKILL);
    k->unwell_since_ms = 0;
  }
  json_decref (o);
}

/* ---- connections of the kernel ------------------------------------------------------------ */

static uint16_t
flags_of (struct nbd_handle *nbd)
{
  return (uint16_t) (NBD_FLAG_HAS_FLAGS | (nbd_is_read_only (nbd) > 0 ? NBD_FLAG_READ_ONLY : 0)
                     | (nbd_can_flush (nbd) > 0 ? NBD_FLAG_SEND_FLUSH : 0)
                     | (nbd_can_fua (nbd) > 0 ? NBD_FLAG_SEND_FUA : 0)
                     | (nbd_can_trim (nbd) > 0 ? NBD_FLAG_SEND_TRIM : 0)
                     | (nbd_can_zero (nbd) > 0 ? 1u << 6 : 0) /* SEND_WRITE_ZEROES */
                     | (nbd_can_multi_conn (nbd) > 0 ? NBD_FLAG_CAN_MULTI_CONN : 0));
}

static void
take_signals (struct keeper *k)
{
  struct signalfd_siginfo si;

  while (read (k->signal_fd, &si, sizeof si) == sizeof si) {
    if (si.ssi_signo != SIGCHLD)
      k->ending = true;
    if (si.ssi_signo == KEEPER_GIVE_UP)
      k->giving_up = true;
  }
}

/* One connection with its handshake over.  Its descriptor, or -1 with a sentence; waits until the
 * proxy has found production, unless it ends, or hangs, or we shall end. */
static int
shake_hands (struct keeper *k, char *err, size_t errlen)
{
  struct nbd_handle *nbd = nbd_create ();
  uint64_t check_at_ms = clock_boottime_ms () + ATTACH_CHECK_MS;
  int fd = -1, status;

  snprintf (err, errlen, "out of memory");
  /* The kernel knows simple replies alone. */
  if (!nbd || nbd_set_request_structured_replies (nbd, false) < 0 || nbd_set_export_name (nbd, k->spec->iasp) < 0
      || nbd_aio_connect_unix (nbd, k->nbd_path) < 0)
    goto error;
  while (nbd_aio_is_connecting (nbd) > 0) {
    unsigned dir = nbd_aio_get_direction (nbd);
    struct pollfd pfd[2] = { { .fd = nbd_aio_get_fd (nbd),
                               .events = (short) ((dir & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0)
                                                  | (dir & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0)) },
                             { .fd = k->signal_fd, .events = POLLIN } };

    if (poll (pfd, 2, 500) < 0)
      continue;
    if (pfd[1].revents)
      take_signals (k);
    if (clock_boottime_ms () >= check_at_ms) {
      check_proxy (k);
      check_at_ms = clock_boottime_ms () + ATTACH_CHECK_MS;
    }
    if (k->ending || proxy_has_ended (k, &status)) {
      snprintf (err, errlen, k->ending ? "told to end" : "the proxy has ended; its log says why");
      goto out;
    }
    if (pfd[0].revents & (POLLIN | POLLHUP | POLLERR) && dir & LIBNBD_AIO_DIRECTION_READ)
      nbd_aio_notify_read (nbd);
    else if (pfd[0].revents & (POLLOUT | POLLHUP | POLLERR))
      nbd_aio_notify_write (nbd);
  }
  if (nbd_aio_is_ready (nbd) <= 0)
    goto error;
  k->device.size = (uint64_t) nbd_get_size (nbd);
  k->device.server_flags = flags_of (nbd);
  fd = fcntl (nbd_aio_get_fd (nbd), F_DUPFD_CLOEXEC, 0);
  if (fd < 0)
    snprintf (err, errlen, "%s", strerror (errno));
  goto out;

error:
  snprintf (err, errlen, "%s", nbd_get_error () ? nbd_get_error () : "the proxy closes the connection");
out:
  nbd_close (nbd); /* says nothing to the server */
  return fd;
}

static void
close_all (int *fds, unsigned n)
{
  for (unsigned i = 0; i < n; i++)
    close (fds[i]);
}

/* As many as are wanted.  0, or -1 with a sentence. */
static int
shake_all (struct keeper *k, int *fds, char *err, size_t errlen)
{
  for (unsigned i = 0; i < k->spec->connections; i++) {
    fds[i] = shake_hands (k, err, errlen);
    if (fds[i] < 0) {
      close_all (fds, i);
      return -1;
    }
  }
  return 0;
}

/* The device can be used: to whoever waits for that.  0, or -1. */
static int
announce (struct keeper *k)
{
  if (write_attach (k, true) < 0)
    return -1;
  k->ready = true;
  tell_ready ();
  say ("%s: attached as /dev/nbd%d, %llu bytes, %u connections", k->spec->iasp, k->device.index,
       (unsigned long long) k->device.size, k->spec->connections);
  return 0;
}

/* Replaces what the kernel has lost. */
static void
relink (struct keeper *k)
{
  int fds[CLIENT_MAX_CONNECTIONS], r;
  char err[256];

  k->relink_at_ms = clock_boottime_ms () + ATTACH_RETRY_MS;
  if (k->proxy == 0)
    return;
  if (shake_all (k, fds, err, sizeof err) < 0) {
    if (!k->ending)
      say ("%s: no connection to the proxy: %s", k->spec->iasp, err);
    return;
  }
  k->dead_link = false; /* before it: one more may die meanwhile */
  r = nbdnl_reconfigure (k->nl, &k->device, fds, k->spec->connections);
  close_all (fds, k->spec->connections);
  if (r == -EINVAL && !k->ready) {
    /* The kernel keeps our name for it until it is closed. */
    say ("/dev/nbd%d: it was detached while something has it open, and is free when that is closed", k->device.index);
    k->held = false;
  }
  else if (r < 0) {
    k->dead_link = true;
    say ("%s: /dev/nbd%d can't be connected again: %s", k->spec->iasp, k->device.index, strerror (-r));
  }
  else if (k->ready)
    say ("%s: /dev/nbd%d is connected again", k->spec->iasp, k->device.index);
  else
    announce (k);
}

static void
detach (struct keeper *k)
{
  int r = nbdnl_disconnect (k->nl, k->device.index);

  if (r < 0) {
    say ("%s: /dev/nbd%d can't be detached: %s", k->spec->iasp, k->device.index, strerror (-r));
    return;
  }
  k->held = false;
  say ("%s: /dev/nbd%d is detached", k->spec->iasp, k->device.index);
}

/* A device of our own.  An exit code. */
static int
attach (struct keeper *k)
{
  int fds[CLIENT_MAX_CONNECTIONS], r = -EBUSY;
  char err[256];

  if (shake_all (k, fds, err, sizeof err) < 0) {
    json_t *status = k->proxy && !k->ending ? keeper_proxy_status (k->spec->dir, 1000) : NULL;
    const char *reason = json_string_value (json_object_get (json_object_get (status, "wait"), "reason"));
    bool unknown = reason && strncmp (reason, "no node has it", 14) == 0;

    if (!k->ending)
      say ("%s: %s", k->spec->iasp, reason ? reason : err);
    json_decref (status);
    return k->ending ? CRG_EXIT_FINE : unknown ? CRG_EXIT_NO_OBJECT : CRG_EXIT_ERROR;
  }
  if (k->device.index < 0 || !keeper_device_is_attached (k->device.index))
    r = nbdnl_connect (k->nl, &k->device, fds, k->spec->connections);
  close_all (fds, k->spec->connections);
  if (r < 0) {
    if (k->device.index >= 0)
      say ("/dev/nbd%d: %s", k->device.index,
           r == -EBUSY ? "something else is attached to it; choose another one" : strerror (-r));
    else
      say ("no nbd device: %s", strerror (-r));
    return r == -EBUSY ? CRG_EXIT_REFUSED : CRG_EXIT_ERROR;
  }
  k->device.index = r;
  k->held = true;
  if (announce (k) < 0) {
    detach (k); /* nobody would know of it */
    return CRG_EXIT_ERROR;
  }
  return CRG_EXIT_FINE;
}

/* ---- keeping ------------------------------------------------------------------------------ */

static void
on_proxy_end (struct keeper *k)
{
  int status;
  uint64_t now_ms = clock_boottime_ms ();

  if (!proxy_has_ended (k, &status))
    return;
  k->restart_ms = now_ms < k->started_ms + 10000 ? MIN (MAX (2 * k->restart_ms, 100u), 5000u) : 0;
  k->restart_at_ms = now_ms + k->restart_ms;
  k->dead_link = true;
  if (WIFSIGNALED (status))
    say ("%s: the proxy died of signal %d; it is started again", k->spec->iasp, WTERMSIG (status));
  else
    say ("%s: the proxy ended with %d; it is started again", k->spec->iasp, WEXITSTATUS (status));
}

static void
keep (struct keeper *k)
{
  uint64_t check_at_ms = 0;

  while (k->held && !k->ending) {
    struct pollfd pfd[2] = { { .fd = nbdnl_fd (k->nl), .events = POLLIN }, { .fd = k->signal_fd, .events = POLLIN } };
    uint64_t now_ms;
    int index;

    if (poll (pfd, 2, k->dead_link || k->proxy == 0 ? 100 : 1000) > 0) {
      if (pfd[1].revents)
        take_signals (k);
      while ((index = nbdnl_dead_link (k->nl)) >= 0)
        if (index == k->device.index)
          k->dead_link = true;
    }
    on_proxy_end (k);
    now_ms = clock_boottime_ms ();
    if (!keeper_device_is_attached (k->device.index)) {
      say ("%s: /dev/nbd%d was detached by somebody else", k->spec->iasp, k->device.index);
      k->held = false;
      return;
    }
    if (k->proxy == 0 && now_ms >= k->restart_at_ms)
      start_proxy (k);
    if (k->proxy && k->dead_link && now_ms >= k->relink_at_ms && access (k->nbd_path, F_OK) == 0)
      relink (k);
    if (now_ms >= check_at_ms) {
      if (k->held && !k->ready && !k->dead_link)
        announce (k); /* once more */
      check_proxy (k);
      check_at_ms = now_ms + ATTACH_CHECK_MS;
    }
  }
}

/* Somebody's writes may wait for us: no memory that is got by writing, and not the first to go. */
static void
protect (void)
{
  CLEANUP_CLOSE int fd = open ("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

  /* Both need privileges that a test may lack; the proxy inherits them. */
  prctl (PR_SET_IO_FLUSHER, 1, 0, 0, 0);
  if (fd >= 0 && write (fd, "-900", 4) < 0)
    return;
}

/* A proxy that a keeper before us has left serves on if it is that of this device; otherwise it
 * would only hold the socket and the name, and is ended.  One that says nothing may only be slow:
 * check_proxy () decides. */
static void
take_old_proxy (struct keeper *k)
{
  pid_t pid = proxy_pid (k->spec->dir);
  int fd = pid > 1 ? (int) syscall (SYS_pidfd_open, pid, 0) : -1;
  json_t *o = fd >= 0 ? keeper_proxy_status (k->spec->dir, 1000) : NULL;
  const char *client = json_string_value (json_object_get (o, "client"));

  if (fd >= 0) {
    k->proxy = pid;
    k->adopted_fd = fd;
    k->started_ms = clock_boottime_ms ();
    if (k->held && (!o || (client && strcmp (client, k->client) == 0)))
      say ("%s: the proxy %d of an earlier keeper serves on", k->spec->iasp, (int) pid);
    else
      end_proxy (k);
  }
  json_decref (o);
}

/* A keeper before us has left a device: it is taken over, under the same name, by which the proxy
 * bars what was sent before (X1).  False: it is another one than is wanted. */
static bool
take_old_device (struct keeper *k)
{
  json_t *old = keeper_read (k->spec->dir);
  const char *client = json_string_value (json_object_get (old, "client"));
  int index = (int) json_integer_value (json_object_get (old, "index"));

  if (client && index >= 0 && is_ours (k, index)) {
    k->device.index = index;
    snprintf (k->client, sizeof k->client, "%s", client);
  }
  k->held = k->found = k->device.index >= 0 && is_ours (k, k->device.index);
  json_decref (old);
  if (k->spec->index < 0 || k->spec->index == k->device.index)
    return true;
  say ("%s: it is attached as /dev/nbd%d already, by a keeper that is gone: name that device, or detach it first",
       k->spec->iasp, k->device.index);
  return false;
}

/* With a proxy that has made its socket.  False: there is none. */
static bool
await_proxy (struct keeper *k)
{
  if (k->proxy == 0)
    start_proxy (k);
  for (unsigned i = 0; k->proxy && i < 500 && access (k->nbd_path, F_OK) != 0; i++) {
    int status;

    proxy_has_ended (k, &status);
    usleep (20000);
  }
  if (k->proxy == 0)
    say ("%s: the proxy ended at once; see %s/log, or what it said above", k->spec->iasp, k->spec->dir);
  return k->proxy != 0;
}

int
keeper_run (const struct keeper_spec *spec)
{
  struct keeper k = { .spec = spec, .adopted_fd = -1 };
  char err[256];
  sigset_t set;
  int lock, rc = CRG_EXIT_ERROR;

  if (mkdir (spec->dir, 0700) < 0 && errno != EEXIST) {
    say ("%s: %s", spec->dir, strerror (errno));
    return CRG_EXIT_ERROR;
  }
  lock = take_lock (spec->dir);
  if (lock < 0) {
    say ("%s: %s", spec->iasp, lock == -EBUSY ? "it is attached already; see 'crgctl attach --list'" : strerror (-lock));
    return lock == -EBUSY ? CRG_EXIT_REFUSED : CRG_EXIT_ERROR;
  }
  file_in (k.nbd_path, sizeof k.nbd_path, spec->dir, "proxy.nbd");
  file_in (k.status_path, sizeof k.status_path, spec->dir, "proxy.status");
  file_in (k.state_path, sizeof k.state_path, spec->dir, "proxy.state");
  snprintf (k.identifier, sizeof k.identifier, "nbd-crg:%s", spec->iasp);
  snprintf (k.client, sizeof k.client, "a-%016llx", (unsigned long long) clock_random_u64 ());
  k.device = (struct nbdnl_device){ .index = spec->index, .block_size = META_BLOCK_SIZE, .timeout_s = ATTACH_TIMEOUT_S,
                                    .dead_conn_s = ATTACH_DEAD_CONN_S, .identifier = k.identifier };
  sigemptyset (&set);
  sigaddset (&set, SIGTERM);
  sigaddset (&set, SIGINT);
  sigaddset (&set, SIGCHLD);
  sigaddset (&set, KEEPER_GIVE_UP);
  sigprocmask (SIG_BLOCK, &set, NULL);
  k.signal_fd = signalfd (-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  k.nl = nbdnl_open (err, sizeof err);
  if (!k.nl) {
    say ("%s", err);
    goto out;
  }
  protect ();
  if (!take_old_device (&k)) {
    rc = CRG_EXIT_REFUSED;
    goto out;
  }
  if (write_attach (&k, false) < 0)
    goto out;
  take_old_proxy (&k);
  if (!k.held)
    unlink (k.state_path); /* of an attachment that is over */
  if (k.held) {
    k.dead_link = true; /* as far as we know */
    keep (&k);
    rc = k.ready || k.ending ? CRG_EXIT_FINE : CRG_EXIT_ERROR;
  }
  else {
    rc = CRG_EXIT_USAGE;
    if (!await_proxy (&k))
      goto out;
    rc = attach (&k);
    if (rc == CRG_EXIT_FINE)
      keep (&k);
  }
  /* Nothing is left behind but what was there before, if we only give up. */
  if (k.held && k.ending && !(k.found && k.giving_up))
    detach (&k);
out:
  if (k.held && keeper_device_is_attached (k.device.index)) {
    /* Its requests wait in the kernel and in the proxy, and somebody may have it mounted. */
    say ("%s: /dev/nbd%d stays as it was left: attach takes it over, detach ends it", spec->iasp, k.device.index);
    if (k.adopted_fd >= 0)
      close (k.adopted_fd);
  }
  else {
    end_proxy (&k);
    if (k.nl)
      keeper_clear (spec->dir);
  }
  nbdnl_close (k.nl);
  close (k.signal_fd);
  close (lock);
  return rc;
}
