// A library that goes with the loader whose class loaded it.
#include <jni.h>
#include <string.h>
#include <unistd.h>

static jobject kept;
static jweak watched;

static void say(const char *text) {
    if (write(1, text, strlen(text)) < 0) {
        _exit(9);
    }
}

JNIEXPORT jint JNI_OnLoad(JavaVM *vm, void *reserved) {
    say("library: loaded\n");
    return JNI_VERSION_1_8;
}

JNIEXPORT void JNI_OnUnload(JavaVM *vm, void *reserved) {
    JNIEnv *env;
    if ((*vm)->GetEnv(vm, (void **)&env, JNI_VERSION_1_8) != JNI_OK) {
        say("library: no environment\n");
        return;
    }
    say((*env)->IsSameObject(env, watched, NULL) ? "library: the class is gone\n" : "library: the class is there\n");
    (*env)->DeleteWeakGlobalRef(env, watched);
    say("library: unloaded\n");
}

JNIEXPORT jint JNICALL Java_Leaving_00024Guest_add(JNIEnv *env, jclass own, jint by) {
    jfieldID count = (*env)->GetStaticFieldID(env, own, "count", "I");
    jmethodID told = (*env)->GetStaticMethodID(env, own, "told", "(I)I");
    jint sum = (*env)->GetStaticIntField(env, own, count) + by;
    (*env)->SetStaticIntField(env, own, count, sum);
    if (watched == NULL) {
        watched = (*env)->NewWeakGlobalRef(env, own);
    }
    return (*env)->CallStaticIntMethod(env, own, told, sum);
}

JNIEXPORT void JNICALL Java_Leaving_00024Guest_hold(JNIEnv *env, jclass own, jboolean hold) {
    if (hold) {
        kept = (*env)->NewGlobalRef(env, own);
    } else {
        (*env)->DeleteGlobalRef(env, kept);
    }
}
