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
