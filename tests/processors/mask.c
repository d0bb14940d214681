/* Hides instruction sets from a process, at the processor's own speed: LD_PRELOAD it and set PERCEIVER_DEPLOY_PROCESSOR.
 *
 * Linux can make the instruction CPUID fault where the processor (x86-64) supports that. The handler asks the processor
 * itself and takes out what is to be hidden, so that every library of the process chooses its kernels as on a lesser
 * processor. Threads inherit it, and so do processes that are started with the same environment.
 *
 *   avx2    no AVX-512, no VNNI of any kind, no AMX, no half-precision or bfloat16 arithmetic
 *   sse4.2  nor AVX, AVX2, FMA, F16C
 *
 * Only programs whose name begins with "python" are masked, so that compilers and browsers that they start are not.
 * Exits with 99 where the machine cannot do it. A program that sets a handler of its own for SIGSEGV breaks it: pytest
 * runs with `-p no:faulthandler`.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { ARCH_SET_CPUID = 0x1012, CANNOT = 99 };

static int hides_avx;

static void ask(uint32_t leaf, uint32_t subleaf, uint32_t *found) {
  __asm__ volatile("cpuid"
                   : "=a"(found[0]), "=b"(found[1]), "=c"(found[2]), "=d"(found[3])
                   : "a"(leaf), "c"(subleaf));
}

static uint32_t bits(const int *numbers, size_t count) {
  uint32_t mask = 0;
  for (size_t index = 0; index < count; ++index) mask |= UINT32_C(1) << numbers[index];
  return mask;
}
#define BITS(...) bits((const int[]){__VA_ARGS__}, sizeof((const int[]){__VA_ARGS__}) / sizeof(int))

/* Numbers of the bits are those of Intel's manual, volume 2A, CPUID; registers are EAX, EBX, ECX, EDX. */
static void hide(uint32_t leaf, uint32_t subleaf, uint32_t *found) {
  if (leaf == 7 && subleaf == 0) {
    found[1] &= ~BITS(16, 17, 21, 26, 27, 28, 30, 31); /* AVX-512 F, DQ, IFMA, PF, ER, CD, BW, VL */
    found[2] &= ~BITS(1, 6, 11, 12, 14);               /* AVX-512 VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ */
    found[3] &= ~BITS(2, 3, 8, 22, 23, 24, 25);        /* AVX-512 4VNNIW, 4FMAPS, VP2INTERSECT, AMX, AVX-512 FP16 */
    if (hides_avx) found[1] &= ~BITS(5);               /* AVX2 */
  }
  if (leaf == 7 && subleaf == 1) {
    found[0] &= ~BITS(4, 5, 21, 23);     /* AVX-VNNI, AVX-512 BF16, AMX FP16, AVX-IFMA */
    found[3] &= ~BITS(4, 5, 8, 10, 19);  /* AVX-VNNI-INT8, AVX-NE-CONVERT, AMX COMPLEX, AVX-VNNI-INT16, AVX10 */
  }
  if (leaf == 1 && hides_avx) found[2] &= ~BITS(12, 28, 29); /* FMA, AVX, F16C */
}

static void on_fault(int number, siginfo_t *info, void *context) {
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  const unsigned char *at = (const unsigned char *)registers[REG_RIP];
  (void)info;
  if (at[0] != 0x0f || at[1] != 0xa2) { /* not CPUID: a fault of the program */
    signal(number, SIG_DFL);
    return;
  }
  uint32_t found[4];
  const uint32_t leaf = (uint32_t)registers[REG_RAX], subleaf = (uint32_t)registers[REG_RCX];
  syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1);
  ask(leaf, subleaf, found);
  syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
  hide(leaf, subleaf, found);
  registers[REG_RAX] = found[0];
  registers[REG_RBX] = found[1];
  registers[REG_RCX] = found[2];
  registers[REG_RDX] = found[3];
  registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void start(void) {
  const char *processor = getenv("PERCEIVER_DEPLOY_PROCESSOR");
  if (processor == NULL || strncmp(program_invocation_short_name, "python", 6) != 0) return;
  hides_avx = strcmp(processor, "sse4.2") == 0;
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGSEGV, &action, NULL);
  if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0) != 0) {
    perror("CPUID cannot be made to fault here");
    _exit(CANNOT);
  }
}
