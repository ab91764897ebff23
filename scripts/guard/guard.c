/*
 * The only entry of the guard directory: starts its own interpreter with its own libraries.
 *
 * Static and without a C library, so that no dynamic loader looks at the task's environment (LD_PRELOAD, LD_AUDIT …)
 * or at a file of the image (/etc/ld.so.preload) before we are here. What it hands on it hides: each variable gets a
 * colon before its name, so that neither the loader, nor the C library, nor Python knows one of them. start.py gives
 * the task's command its own variables back, and the guard those that it may have.
 *
 * x86-64 Linux. System calls: execve, write, exit; nothing else.
 */

typedef unsigned long word;

enum { WRITE = 1, EXECVE = 59, EXIT = 60, AT_EXECFN = 31, LONGEST = 4096, MISCONFIGURED = 98 };

__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall begin\n");

static long call(long number, long first, long second, long third)
{
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(first), "S"(second), "d"(third)
                     : "rcx", "r11", "memory");
    return result;
}

static word length(const char *text)
{
    word count = 0;
    while (text[count])
        count++;
    return count;
}

static char *append(char *end, const char *text, word count)
{
    for (word index = 0; index < count; index++)
        *end++ = text[index];
    *end = 0;
    return end;
}

__attribute__((noreturn)) static void fail(const char *why)
{
    call(WRITE, 2, (long)why, (long)length(why));
    call(EXIT, MISCONFIGURED, 0, 0);
    __builtin_unreachable();
}

/* What the kernel leaves on the stack: argc, argv…, 0, envp…, 0, pairs of the auxiliary vector. */
__attribute__((used, noreturn)) void begin(word *stack)
{
    word argc = stack[0];
    char **argv = (char **)(stack + 1);
    char **envp = argv + argc + 1;
    word variables = 0, size = 0;
    for (; envp[variables]; variables++)
        size += length(envp[variables]) + 2;

    const char *self = 0;
    for (word *pair = (word *)(envp + variables + 1); pair[0]; pair += 2)
        if (pair[0] == AT_EXECFN)
            self = (const char *)pair[1];
    /* Not /proc/self/exe: there may be no /proc. Not argv[0]: whoever starts us writes what he likes there. */
    if (!self || self[0] != '/' || length(self) > LONGEST)
        fail("sealflow: start the guard by its absolute path.\n");
    word folder = length(self);
    while (self[folder - 1] != '/')
        folder--;

    static const char *const own[] = {"lib/ld-linux-x86-64.so.2", "lib", "bin/python3", "lib/start.pyc"};
    char paths[4][LONGEST + 64];
    for (int index = 0; index < 4; index++)
        append(append(paths[index], self, folder), own[index], length(own[index]));

    char *arguments[argc + 10];
    word count = 0;
    arguments[count++] = paths[0];
    arguments[count++] = "--inhibit-cache";
    arguments[count++] = "--library-path";
    arguments[count++] = paths[1];
    arguments[count++] = paths[2];
    /* Isolated, without `site`, and never writing bytecode. */
    arguments[count++] = "-I";
    arguments[count++] = "-S";
    arguments[count++] = "-B";
    arguments[count++] = paths[3];
    for (word index = 1; index < argc; index++)
        arguments[count++] = argv[index];
    arguments[count] = 0;

    char hidden[size + 1], *end = hidden;
    char *environment[variables + 1];
    for (word index = 0; index < variables; index++) {
        environment[index] = end;
        end = append(end, ":", 1);
        end = append(end, envp[index], length(envp[index])) + 1;
    }
    environment[variables] = 0;

    call(EXECVE, (long)paths[0], (long)arguments, (long)environment);
    fail("sealflow: the guard directory is incomplete, or an argument is longer than the kernel takes.\n");
}
