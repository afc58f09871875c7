/* Starts a virtual machine, runs a method, fails to start another one, and ends it. */
#include <jni.h>
#include <pthread.h>
#include <stdio.h>
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
    JavaVM *another;
    printf("again %d\n", JNI_CreateJavaVM(&another, (void **)&env, &arguments));
    fflush(stdout);
    printf("ended %d\n", (*vm)->DestroyJavaVM(vm));
    return 0;
}
