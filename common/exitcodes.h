/* SPDX-License-Identifier: BSD-3-Clause */
/* The exit codes of crgctl, which are also the "code" of an error answer on the admin socket.
 * This table is the only place that numbers them; `crgctl exit-codes`, the man page and a test
 * follow it.  Constants only.
 */
#ifndef CRG_EXITCODES_H
#define CRG_EXITCODES_H

/* X (symbol, number, name, meaning): names are one word, meanings one line. */
#define CRG_EXIT_CODES(X)                                                                        \
  X (EXIT_FINE, 0, "fine", "the command did what it was asked; a predicate is true")            \
  X (EXIT_ERROR, 1, "error", "something failed that no other code names; the message says what") \
  X (EXIT_FALSE, 2, "false", "a predicate is false")                                             \
  X (EXIT_TIMEOUT, 3, "timeout", "no answer, or not the state waited for, in the time given")   \
  X (EXIT_DEGRADED, 4, "degraded", "all is served, but a copy is not in sync")                   \
  X (EXIT_UNAVAILABLE, 5, "unavailable", "an IASP is not served")                                \
  X (EXIT_DAEMON_DOWN, 6, "daemon-down", "crgd does not answer on its socket")                   \
  X (EXIT_REFUSED, 7, "refused", "the rules of the group do not allow it now")                   \
  X (EXIT_NEEDS_FORCE, 8, "needs-force", "it would destroy something; --force allows it")        \
  X (EXIT_USAGE, 9, "usage", "the command line or a configuration file is wrong")                \
  X (EXIT_NO_OBJECT, 10, "no-object", "no CRG, IASP, node or file of that name")

enum crg_exit_code {
#define CRG_EXIT_ENUM(symbol, number, name, meaning) CRG_##symbol = number,
  CRG_EXIT_CODES (CRG_EXIT_ENUM)
#undef CRG_EXIT_ENUM
};

#endif /* CRG_EXITCODES_H */
