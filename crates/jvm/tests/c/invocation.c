/* Starts a virtual machine, runs a method, fails to start another one, and ends it; or a Java method ends the process. */
#include <jni.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static JavaVM *vm;

static void *other(void *unused) {
    JNIEnv *env;
    JavaVM *found;
    jsize count = 0;
    int told = JNI_GetCreatedJavaVMs(&found, 1, &count);
    printf("created %d, %d of them\n", told, count);
    printf("same %d\n", found == vm);
    printf("detached %d\n", (*vm)->GetEnv(vm, (void **)&env, JNI_VERSION_10));
    printf("attached %d\n", (*vm)->AttachCurrentThread(vm, (void **)&env, NULL));
    printf("version %x\n", (*env)->GetVersion(env));
    printf("left %d\n", (*vm)->DetachCurrentThread(vm));
    return NULL;
}

/* What is left of the virtual machine. */
static void late(void) {
    JNIEnv *env;
    JavaVM *found;
    jsize count = -1;
    JavaVMInitArgs arguments = {JNI_VERSION_10, 0, NULL, JNI_TRUE};
    printf("late: environment %d\n", (*vm)->GetEnv(vm, (void **)&env, JNI_VERSION_10));
    printf("attached %d\n", (*vm)->AttachCurrentThread(vm, (void **)&env, NULL));
    printf("attached as daemon %d\n", (*vm)->AttachCurrentThreadAsDaemon(vm, (void **)&env, NULL));
    printf("left %d\n", (*vm)->DetachCurrentThread(vm));
    printf("defaults %d\n", JNI_GetDefaultJavaVMInitArgs(&arguments));
    int told = JNI_GetCreatedJavaVMs(&found, 1, &count);
    printf("created %d, %d of them\n", told, count);
    printf("ended %d\n", (*vm)->DestroyJavaVM(vm));
    printf("made %d\n", JNI_CreateJavaVM(&found, (void **)&env, &arguments));
}

int main(int count, char **words) {
    JNIEnv *env;
    JavaVMOption options[] = {{"-Dgreeting=hello"}, {"-Xmx64m"}, {"-Xunknown"}, {words[1]}};
    JavaVMInitArgs arguments = {JNI_VERSION_10, 4, options, JNI_TRUE};
    printf("defaults %d\n", JNI_GetDefaultJavaVMInitArgs(&arguments));
    int made = JNI_CreateJavaVM(&vm, (void **)&env, &arguments);
    printf("made %d\n", made);
    if (made != JNI_OK) {
        return 1;
    }
    jclass hosted = (*env)->FindClass(env, "Hosted");
    if (hosted == NULL) {
        (*env)->ExceptionDescribe(env);
        return 2;
    }
    jmethodID run = (*env)->GetStaticMethodID(env, hosted, "run", "(I)I");
    fflush(stdout);
    printf("answer %d\n", (*env)->CallStaticIntMethod(env, hosted, run, 20));
    pthread_t thread;
    pthread_create(&thread, NULL, other, NULL);
    pthread_join(thread, NULL);
    fflush(stdout);
    atexit(late);
    if (count > 2) {
        jmethodID leave = (*env)->GetStaticMethodID(env, hosted, "leave", "(I)V");
        (*env)->CallStaticVoidMethod(env, hosted, leave, 3);
    }
    /* HotSpot tells of no virtual machine any more after this failed, so that it is not tried before leaving. */
    JavaVM *another;
    printf("again %d\n", JNI_CreateJavaVM(&another, (void **)&env, &arguments));
    fflush(stdout);
    printf("ended %d\n", (*vm)->DestroyJavaVM(vm));
    return 0;
}
