/* SPDX-License-Identifier: BSD-3-Clause */
/* What others say can't speak to the terminal that shows crgd's log, or the plugin's, and stays one line there.
 */
#include <config.h>

#include <unistd.h>

#include "plugin/log.h"
#include "server/log.h"
#include "tests/tap.h"

#define SAID "\x1b[31mred\nnode n1: all is well \xc2\x9b" "1m \xc3\xa9"
#define SHOWN "\\x1b[31mred\\x0anode n1: all is well \\xc2\\x9b1m \xc3\xa9"

static char text[16384];
static int mine, pipe_fds[2];

/* What goes to standard error between the two. */
static void
listen_to (void)
{
  mine = dup (STDERR_FILENO);
  if (mine < 0 || pipe (pipe_fds) < 0 || dup2 (pipe_fds[1], STDERR_FILENO) < 0)
    abort ();
  close (pipe_fds[1]);
}

static const char *
heard (void)
{
  size_t len = 0;
  ssize_t n;

  dup2 (mine, STDERR_FILENO);
  close (mine);
  while ((n = read (pipe_fds[0], text + len, sizeof text - 1 - len)) > 0)
    len += (size_t) n;
  close (pipe_fds[0]);
  text[len] = '\0';
  return text;
}

static bool
is_one_line (void)
{
  return strchr (text, '\n') == text + strlen (text) - 1;
}

int
main (void)
{
  static char much[6000];

  setenv ("JOURNAL_STREAM", "8:1", 1);
  listen_to ();
  log_open ("n1", 0);
  log_notice ("x: %s", SAID);
  log_info ("more than is asked for");
  log_close ();
  is_str (heard (), "notice: x: " SHOWN "\n", "crgd");

  memset (much, '\a', sizeof much - 1);
  listen_to ();
  log_open ("n1", 0);
  log_error ("%s", much);
  log_close ();
  heard ();
  ok (is_one_line () && strlen (text) < 4 * 2048 + 16, "a long line of crgd is cut");

  log_init ("payroll");
  listen_to ();
  log_line ("x: %s", SAID);
  is_str (heard (), "iasp payroll: x: " SHOWN "\n", "the plugin");
  listen_to ();
  log_line ("%s", much);
  heard ();
  ok (is_one_line () && strlen (text) <= 4 * 1024 + 1, "a long line of the plugin is cut");
  return tap_done ();
}
