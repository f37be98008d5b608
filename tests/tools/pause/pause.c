/* The process that holds a pod's namespaces, and a node's: it waits, and buries what is orphaned
 * to it (with SIGCHLD ignored the kernel does so itself). */
#include <signal.h>
#include <unistd.h>

static void leave(int signal) { _exit(128 + signal); }

int main(void) {
    signal(SIGCHLD, SIG_IGN);
    signal(SIGTERM, leave); /* process 1 of a namespace gets only signals it has a handler for */
    signal(SIGINT, leave);
    for (;;) pause();
}
