/* libc: formats the va_list of libbpf's callbacks, and moves its result into a descriptor. */
int vasprintf(char **strp, const char *format, void *ap);
int vdprintf(int fd, const char *format, void *ap);
void free(void *ptr);
/* fsopen(2) and its like have no wrapper before glibc 2.36 */
long syscall(long number, ...);
/* namespaces(7): Python has these from 3.12 on */
int unshare(int flags);
int setns(int fd, int nstype);
int prctl(int option, ...);
/* a BPF arena wants to be at a chosen address, for which Python's mmap has no argument */
void *mmap(void *addr, size_t length, int prot, int flags, int fd, long offset);
int munmap(void *addr, size_t length);
/* capset(2): a header, and two records of effective, permitted, inheritable */
int capset(void *header, const void *data);
