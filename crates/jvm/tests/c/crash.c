/* C code that does what ends the process: see Crash.java. */
#include <jni.h>
#include <stdlib.h>

JNIEXPORT void JNICALL Java_Crash_crash(JNIEnv *env, jclass self, jint which) {
  switch (which) {
  case 0: *(volatile int *)8 = 1; break;
  case 1: (*env)->FatalError(env, "no way on"); break;
  case 2: abort();
  }
}
