/* What Jni.java asks of C code. Every line that is written says what JNI answered. */
#include <jni.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static JavaVM *vm;
static jclass kept;

#define SAY(...) (printf(__VA_ARGS__), putchar('\n'), fflush(stdout))

JNIEXPORT jint JNICALL JNI_OnLoad(JavaVM *machine, void *reserved) {
  JNIEnv *env;
  vm = machine;
  jint result = (*vm)->GetEnv(vm, (void **)&env, JNI_VERSION_1_8);
  jclass own = (*env)->FindClass(env, "Jni$Derived");
  kept = (*env)->NewGlobalRef(env, own);
  SAY("loaded %d %d %d", result, own != NULL, (*vm)->GetEnv(vm, (void **)&env, 0x7fff0000));
  return JNI_VERSION_10;
}

JNIEXPORT jstring JNICALL Java_Jni_version(JNIEnv *env, jclass type) {
  char text[64];
  JavaVM *same;
  jint result = (*env)->GetJavaVM(env, &same);
  snprintf(text, sizeof text, "version %x %d %d", (*env)->GetVersion(env), result, same == vm);
  return (*env)->NewStringUTF(env, text);
}

/* The library is linked with -ljvm, which is this process. */
JNIEXPORT jint JNICALL Java_Jni_machines(JNIEnv *env, jclass type) {
    JavaVM *own, *found = NULL;
    jsize count = 0;
    (*env)->GetJavaVM(env, &own);
    JNI_GetCreatedJavaVMs(&found, 1, &count);
    JavaVMInitArgs arguments = {JNI_VERSION_10};
    return count * 100 + (found == own) * 10 + (JNI_GetDefaultJavaVMInitArgs(&arguments) == JNI_OK);
}

JNIEXPORT jint JNICALL Java_Jni_many(JNIEnv *env, jclass type, jint a, jlong b, jfloat c, jdouble d, jbyte e, jshort f, jchar g, jboolean h,
    jint i, jint j, jfloat k, jfloat l, jdouble m, jdouble n, jfloat o, jdouble p, jfloat q, jobject r, jlong s) {
  SAY("%d %ld %g %g %d %d %d %d %d %d %g %g %g %g %g %g %g %d %ld", a, (long)b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q,
      (*env)->GetStringLength(env, r), (long)s);
  return a + i + j;
}

JNIEXPORT jint JNICALL Java_Jni_returnZ(JNIEnv *env, jclass type, jint bits) { return bits; }
JNIEXPORT jint JNICALL Java_Jni_returnB(JNIEnv *env, jclass type, jint bits) { return bits; }
JNIEXPORT jint JNICALL Java_Jni_returnC(JNIEnv *env, jclass type, jint bits) { return bits; }
JNIEXPORT jint JNICALL Java_Jni_returnS(JNIEnv *env, jclass type, jint bits) { return bits; }
JNIEXPORT jfloat JNICALL Java_Jni_returnF(JNIEnv *env, jclass type, jdouble value) { return (jfloat)value * 2; }
JNIEXPORT jdouble JNICALL Java_Jni_returnD(JNIEnv *env, jclass type, jfloat value) { return value * 2; }
JNIEXPORT jlong JNICALL Java_Jni_returnJ(JNIEnv *env, jclass type, jint value) { return value; }

JNIEXPORT jstring JNICALL Java_Jni_instance(JNIEnv *env, jobject self, jstring text) {
  jclass type = (*env)->GetObjectClass(env, self);
  jmethodID name = (*env)->GetMethodID(env, (*env)->GetObjectClass(env, type), "getName", "()Ljava/lang/String;");
  jstring own = (*env)->CallObjectMethod(env, type, name);
  jmethodID concat = (*env)->GetMethodID(env, (*env)->GetObjectClass(env, own), "concat", "(Ljava/lang/String;)Ljava/lang/String;");
  return (*env)->CallObjectMethod(env, own, concat, text);
}

JNIEXPORT jstring JNICALL Java_Jni_over__I(JNIEnv *env, jclass type, jint value) { return (*env)->NewStringUTF(env, "int"); }
JNIEXPORT jstring JNICALL Java_Jni_over__Ljava_lang_String_2(JNIEnv *env, jclass type, jstring value) { return (*env)->NewStringUTF(env, "String"); }
JNIEXPORT jstring JNICALL Java_Jni_under_1score_00024dollar_000e4(JNIEnv *env, jclass type, jobjectArray array, jstring text) {
  char line[64];
  snprintf(line, sizeof line, "mangled %d", (*env)->GetArrayLength(env, array));
  return (*env)->NewStringUTF(env, line);
}

JNIEXPORT void JNICALL Java_Jni_fields(JNIEnv *env, jclass self, jobject object, jclass type) {
#define FIELD(Name, name, sig, format, value, next) do { \
    jfieldID id = (*env)->GetFieldID(env, type, name, sig); \
    SAY(name " " format, (*env)->Get##Name##Field(env, object, id)); \
    (*env)->Set##Name##Field(env, object, id, next); \
    jfieldID sid = (*env)->GetStaticFieldID(env, type, "s" name, sig); \
    SAY("s" name " " format, (*env)->GetStatic##Name##Field(env, type, sid)); \
    (*env)->SetStatic##Name##Field(env, type, sid, value); \
  } while (0)
  FIELD(Boolean, "z", "Z", "%d", JNI_TRUE, JNI_FALSE);
  FIELD(Byte, "b", "B", "%d", -3, 3);
  FIELD(Char, "c", "C", "%d", 0xffff, 0x41);
  FIELD(Short, "s", "S", "%d", -300, 300);
  FIELD(Long, "j", "J", "%ld", -1L << 50, 1L << 50);
  FIELD(Float, "f", "F", "%g", 0.125f, 0.25f);
  FIELD(Double, "d", "D", "%g", 1e300, -1e-300);
  jfieldID number = (*env)->GetFieldID(env, type, "number", "I");
  SAY("number %d", (*env)->GetIntField(env, object, number));
  (*env)->SetIntField(env, object, number, 70);
  jfieldID si = (*env)->GetStaticFieldID(env, type, "si", "I");
  (*env)->SetStaticIntField(env, type, si, -1);
  jfieldID o = (*env)->GetFieldID(env, type, "o", "Ljava/lang/Object;");
  jobject old = (*env)->GetObjectField(env, object, o);
  jfieldID so = (*env)->GetStaticFieldID(env, type, "so", "Ljava/lang/Object;");
  (*env)->SetStaticObjectField(env, type, so, old);
  (*env)->SetObjectField(env, object, o, NULL);
  jfieldID shared = (*env)->GetStaticFieldID(env, type, "shared", "Ljava/lang/String;");
  SAY("shared %d", (*env)->GetStringLength(env, (*env)->GetStaticObjectField(env, type, shared)));
  (*env)->SetStaticObjectField(env, type, shared, (*env)->NewStringUTF(env, "changed"));
}

static jobject list(JNIEnv *env, jclass type, jmethodID id, ...) {
  va_list arguments;
  va_start(arguments, id);
  jobject result = (*env)->CallStaticObjectMethodV(env, type, id, arguments);
  va_end(arguments);
  return result;
}

static void line(JNIEnv *env, const char *what, jstring text) {
  const char *chars = (*env)->GetStringUTFChars(env, text, NULL);
  SAY("%s %s", what, chars);
  (*env)->ReleaseStringUTFChars(env, text, chars);
}

JNIEXPORT void JNICALL Java_Jni_calls(JNIEnv *env, jclass self, jobject object, jclass type, jclass base) {
#define CALL(Name, letter, format, argument, member) do { \
    jmethodID id = (*env)->GetMethodID(env, type, "call" #letter, "(" #letter ")" #letter); \
    jvalue values[1]; memset(values, 0xff, sizeof values); values[0].member = argument; \
    SAY(#Name " " format " " format " " format, (*env)->Call##Name##Method(env, object, id, argument), \
        (*env)->Call##Name##MethodA(env, object, id, values), (*env)->CallNonvirtual##Name##Method(env, object, type, id, argument)); \
  } while (0)
  CALL(Boolean, Z, "%d", JNI_TRUE, z);
  CALL(Byte, B, "%d", 127, b);
  CALL(Char, C, "%d", 0xffff, c);
  CALL(Short, S, "%d", -32768, s);
  CALL(Int, I, "%d", 1 << 30, i);
  CALL(Long, J, "%ld", 1L << 40, j);
  CALL(Float, F, "%g", 3.0f, f);
  CALL(Double, D, "%g", 3.0, d);
  jmethodID name = (*env)->GetMethodID(env, base, "name", "()Ljava/lang/String;");
  line(env, "virtual", (*env)->CallObjectMethod(env, object, name));
  line(env, "nonvirtual", (*env)->CallNonvirtualObjectMethod(env, object, base, name));
  jmethodID twice = (*env)->GetStaticMethodID(env, type, "twice", "(J)J");
  SAY("twice %ld", (long)(*env)->CallStaticLongMethod(env, type, twice, (jlong)1 << 41));
  jmethodID callL = (*env)->GetMethodID(env, type, "callL", "(Ljava/lang/Object;)Ljava/lang/Object;");
  jobject same = (*env)->CallObjectMethod(env, object, callL, object);
  SAY("same %d %d", (*env)->IsSameObject(env, same, object), (*env)->CallObjectMethod(env, object, callL, NULL) == NULL);
  jclass builder = (*env)->FindClass(env, "java/lang/StringBuilder");
  jobject to = (*env)->NewObject(env, builder, (*env)->GetMethodID(env, builder, "<init>", "()V"));
  jmethodID callV = (*env)->GetMethodID(env, type, "callV", "(Ljava/lang/StringBuilder;)V");
  (*env)->CallVoidMethod(env, object, callV, to);
  line(env, "void", (*env)->CallObjectMethod(env, to, (*env)->GetMethodID(env, builder, "toString", "()Ljava/lang/String;")));
  jclass circle = (*env)->FindClass(env, "Jni$Circle");
  jobject round = (*env)->NewObject(env, circle, (*env)->GetMethodID(env, circle, "<init>", "()V"));
  line(env, "default", (*env)->CallObjectMethod(env, round, (*env)->GetMethodID(env, circle, "shape", "()Ljava/lang/String;")));
  jmethodID mixed = (*env)->GetStaticMethodID(env, type, "mixed",
      "(ZBCSIJFDLjava/lang/Object;[IFDFDFDFDJLjava/lang/String;)Ljava/lang/String;");
  jintArray array = (*env)->NewIntArray(env, 6);
  jstring text = (*env)->NewStringUTF(env, "text");
  line(env, "variadic", (*env)->CallStaticObjectMethod(env, type, mixed, JNI_TRUE, -1, 0x20ac, -2, -3, (jlong)-4, 0.5f, 1.5, text, array,
      2.5f, 3.5, 4.5f, 5.5, 6.5f, 7.5, 8.5f, 9.5, (jlong)1 << 60, text));
  line(env, "list", list(env, type, mixed, JNI_FALSE, -1, 0x20ac, -2, -3, (jlong)-4, 0.5f, 1.5, NULL, array,
      2.5f, 3.5, 4.5f, 5.5, 6.5f, 7.5, 8.5f, 9.5, (jlong)1 << 60, text));
  jvalue values[20] = {{.z = 1}, {.b = -1}, {.c = 0x20ac}, {.s = -2}, {.i = -3}, {.j = -4}, {.f = 0.5f}, {.d = 1.5}, {.l = text}, {.l = array},
      {.f = 2.5f}, {.d = 3.5}, {.f = 4.5f}, {.d = 5.5}, {.f = 6.5f}, {.d = 7.5}, {.f = 8.5f}, {.d = 9.5}, {.j = -9}, {.l = text}};
  line(env, "values", (*env)->CallStaticObjectMethodA(env, type, mixed, values));
}

JNIEXPORT jobject JNICALL Java_Jni_make(JNIEnv *env, jclass self, jclass type, jint number, jdouble part) {
  jmethodID init = (*env)->GetMethodID(env, type, "<init>", "(ID)V");
  if (init == NULL) {
    (*env)->ExceptionClear(env);
    init = (*env)->GetMethodID(env, type, "<init>", "()V");
  }
  return (*env)->NewObject(env, type, init, number, part);
}

JNIEXPORT jobject JNICALL Java_Jni_allocate(JNIEnv *env, jclass self, jclass type) { return (*env)->AllocObject(env, type); }

JNIEXPORT void JNICALL Java_Jni_strings(JNIEnv *env, jclass self, jstring text) {
  jboolean copy = 9;
  jint length = (*env)->GetStringLength(env, text), bytes = (*env)->GetStringUTFLength(env, text);
  printf("length %d %d:", length, bytes);
  const jchar *units = (*env)->GetStringChars(env, text, NULL);
  for (int i = 0; i < length; i++) printf(" %x", units[i]);
  jstring again = (*env)->NewString(env, units, length);
  (*env)->ReleaseStringChars(env, text, units);
  const char *utf = (*env)->GetStringUTFChars(env, text, &copy);
  printf(" |");
  for (int i = 0; i <= bytes; i++) printf(" %x", utf[i] & 0xff);
  jstring decoded = (*env)->NewStringUTF(env, utf);
  (*env)->ReleaseStringUTFChars(env, text, utf);
  jmethodID equals = (*env)->GetMethodID(env, (*env)->GetObjectClass(env, text), "equals", "(Ljava/lang/Object;)Z");
  printf(" | %d %d", (*env)->CallBooleanMethod(env, text, equals, again), (*env)->CallBooleanMethod(env, text, equals, decoded));
  units = (*env)->GetStringCritical(env, text, NULL);
  unsigned sum = 0;
  for (int i = 0; i < length; i++) sum += units[i];
  (*env)->ReleaseStringCritical(env, text, units);
  jchar part[4] = {0};
  char small[16] = {0};
  if (length > 3) {
    (*env)->GetStringRegion(env, text, 1, 2, part);
    (*env)->GetStringUTFRegion(env, text, 0, 2, small);
  }
  SAY(" %u %x %x %zu", sum, part[0], part[1], strlen(small));
}

JNIEXPORT void JNICALL Java_Jni_arrays(JNIEnv *env, jclass self, jintArray ints, jbyteArray bytes, jdoubleArray doubles, jbooleanArray booleans, jobjectArray texts) {
  jint *i = (*env)->GetIntArrayElements(env, ints, NULL);
  i[0] = 100;
  (*env)->ReleaseIntArrayElements(env, ints, i, JNI_COMMIT);
  i[1] = 200;
  (*env)->ReleaseIntArrayElements(env, ints, i, 0);
  jbyte *b = (*env)->GetByteArrayElements(env, bytes, NULL);
  SAY("bytes %d %d %d", b[0], b[1], b[2]);
  (*env)->ReleaseByteArrayElements(env, bytes, b, JNI_ABORT);
  jint region[3] = {7, 8, 9}, got[2];
  (*env)->SetIntArrayRegion(env, ints, 2, 3, region);
  (*env)->GetIntArrayRegion(env, ints, 3, 2, got);
  SAY("region %d %d of %d", got[0], got[1], (*env)->GetArrayLength(env, ints));
  jdouble *d = (*env)->GetPrimitiveArrayCritical(env, doubles, NULL);
  jboolean *z = (*env)->GetPrimitiveArrayCritical(env, booleans, NULL);
  d[1] = 4.75;
  z[1] = JNI_TRUE;
  (*env)->ReleasePrimitiveArrayCritical(env, booleans, z, 0);
  (*env)->ReleasePrimitiveArrayCritical(env, doubles, d, 0);
  (*env)->SetObjectArrayElement(env, texts, 1, (*env)->GetObjectArrayElement(env, texts, 2));
  SAY("null %d", (*env)->GetObjectArrayElement(env, texts, 0) == NULL);
  jobjectArray made = (*env)->NewObjectArray(env, 3, (*env)->FindClass(env, "java/lang/String"), (*env)->GetObjectArrayElement(env, texts, 0));
  SAY("made %d %d", (*env)->GetArrayLength(env, made), (*env)->IsSameObject(env, (*env)->GetObjectArrayElement(env, made, 2), (*env)->GetObjectArrayElement(env, texts, 0)));
  jlongArray longs = (*env)->NewLongArray(env, 2);
  jlong values[2] = {1, -1};
  (*env)->SetLongArrayRegion(env, longs, 0, 2, values);
  jlong *l = (*env)->GetLongArrayElements(env, longs, NULL);
  SAY("longs %ld %ld", l[0], l[1]);
  (*env)->ReleaseLongArrayElements(env, longs, l, 0);
  SAY("empty %d %d %d %d", (*env)->GetArrayLength(env, (*env)->NewCharArray(env, 0)), (*env)->GetArrayLength(env, (*env)->NewFloatArray(env, 4)),
      (*env)->GetArrayLength(env, (*env)->NewShortArray(env, 5)), (*env)->GetArrayLength(env, (*env)->NewBooleanArray(env, 1)));
}

JNIEXPORT void JNICALL Java_Jni_failures(JNIEnv *env, jclass self, jint which, jobject array) {
  jclass string = (*env)->FindClass(env, "java/lang/String");
  jint small[8];
  switch (which) {
  case 0: (*env)->GetMethodID(env, string, "nothere", "()V"); break;
  case 1: (*env)->GetMethodID(env, string, "length", "(I)I"); break;
  case 2: (*env)->GetStaticMethodID(env, string, "length", "()I"); break;
  case 3: (*env)->GetFieldID(env, string, "nothere", "I"); break;
  case 4: (*env)->GetStaticFieldID(env, string, "hash", "I"); break;
  case 5: (*env)->GetIntArrayRegion(env, array, 1, 3, small); break;
  case 6: (*env)->SetIntArrayRegion(env, array, -1, 1, small); break;
  case 7: (*env)->NewIntArray(env, -1); break;
  case 8: (*env)->GetObjectArrayElement(env, (*env)->NewObjectArray(env, 2, string, NULL), 2); break;
  case 9: (*env)->SetObjectArrayElement(env, (*env)->NewObjectArray(env, 2, string, NULL), 0, array); break;
  case 10: (*env)->GetStringRegion(env, (*env)->NewStringUTF(env, "abc"), 2, 2, (jchar *)small); break;
  case 11: (*env)->ThrowNew(env, (*env)->FindClass(env, "java/io/IOException"), "thrown"); break;
  case 12: (*env)->ThrowNew(env, (*env)->FindClass(env, "java/lang/Error"), NULL); break;
  case 13: (*env)->MonitorExit(env, array); break;
  case 14: (*env)->NewObjectArray(env, -5, string, NULL); break;
  case 15: (*env)->GetMethodID(env, string, "<init>", "(J)V"); break;
  }
}

JNIEXPORT jobject JNICALL Java_Jni_references(JNIEnv *env, jclass self, jobject object) {
  jobject global = (*env)->NewGlobalRef(env, object);
  jweak weak = (*env)->NewWeakGlobalRef(env, object);
  jobject local = (*env)->NewLocalRef(env, weak);
  SAY("types %d %d %d %d %d", (*env)->GetObjectRefType(env, object), (*env)->GetObjectRefType(env, global), (*env)->GetObjectRefType(env, weak),
      (*env)->GetObjectRefType(env, local), (*env)->GetObjectRefType(env, NULL));
  SAY("same %d %d %d %d", (*env)->IsSameObject(env, object, global), (*env)->IsSameObject(env, weak, local), (*env)->IsSameObject(env, weak, NULL),
      (*env)->IsSameObject(env, NULL, NULL));
  (*env)->DeleteLocalRef(env, local);
  SAY("frames %d %d %d", (*env)->EnsureLocalCapacity(env, 5000), (*env)->EnsureLocalCapacity(env, -1), (*env)->PushLocalFrame(env, 10));
  jstring inner = NULL;
  for (int i = 0; i < 100; i++) inner = (*env)->NewStringUTF(env, "inner");
  jobject outer = (*env)->PopLocalFrame(env, inner);
  SAY("popped %d %d", (*env)->GetStringLength(env, outer), (*env)->PopLocalFrame(env, NULL) == NULL);
  (*env)->DeleteGlobalRef(env, global);
  (*env)->DeleteWeakGlobalRef(env, weak);
  (*env)->DeleteLocalRef(env, NULL);
  SAY("kept %d", (*env)->IsSameObject(env, kept, (*env)->FindClass(env, "Jni$Derived")));
  return outer;
}

JNIEXPORT jint JNICALL Java_Jni_walk(JNIEnv *env, jclass self, jobject object, jint count) {
  /* As one walks a list: the next is made before the last is deleted. */
  jobject current = (*env)->NewLocalRef(env, object);
  for (int i = 0; i < count; i++) {
    jobject next = (*env)->NewLocalRef(env, current);
    (*env)->DeleteLocalRef(env, current);
    current = next;
  }
  return (*env)->GetStringLength(env, current);
}

JNIEXPORT void JNICALL Java_Jni_exceptions(JNIEnv *env, jclass self, jobject runnable) {
  jmethodID run = (*env)->GetMethodID(env, (*env)->GetObjectClass(env, runnable), "run", "()V");
  (*env)->CallVoidMethod(env, runnable, run);
  jthrowable thrown = (*env)->ExceptionOccurred(env);
  SAY("occurred %d %d", (*env)->ExceptionCheck(env), thrown != NULL);
  (*env)->ExceptionDescribe(env);
  SAY("after %d", (*env)->ExceptionCheck(env));
  jmethodID message = (*env)->GetMethodID(env, (*env)->GetObjectClass(env, thrown), "getMessage", "()Ljava/lang/String;");
  line(env, "message", (*env)->CallObjectMethod(env, thrown, message));
  SAY("throw %d %d", (*env)->Throw(env, thrown), (*env)->ExceptionCheck(env));
  (*env)->ExceptionClear(env);
  SAY("cleared %d", (*env)->ExceptionOccurred(env) == NULL);
}

JNIEXPORT void JNICALL Java_Jni_returnWithException(JNIEnv *env, jclass self) {
  (*env)->ThrowNew(env, (*env)->FindClass(env, "java/lang/ArithmeticException"), "of C");
  /* What cleans up still works. */
  jobject global = (*env)->NewGlobalRef(env, self);
  (*env)->DeleteGlobalRef(env, global);
}

JNIEXPORT jobject JNICALL Java_Jni_reflected(JNIEnv *env, jclass self, jobject method, jobject constructor, jobject field, jobject statics) {
  jclass base = (*env)->FindClass(env, "Jni$Base");
  jmethodID id = (*env)->FromReflectedMethod(env, method), init = (*env)->FromReflectedMethod(env, constructor);
  jfieldID number = (*env)->FromReflectedField(env, field), shared = (*env)->FromReflectedField(env, statics);
  jobject object = (*env)->NewObject(env, base, init, 40, 2.5);
  SAY("reflected %d %d", (*env)->GetIntField(env, object, number), (*env)->GetStringLength(env, (*env)->CallObjectMethod(env, object, id)));
  jobjectArray all = (*env)->NewObjectArray(env, 4, (*env)->FindClass(env, "java/lang/Object"), NULL);
  (*env)->SetObjectArrayElement(env, all, 0, (*env)->ToReflectedMethod(env, base, id, JNI_FALSE));
  (*env)->SetObjectArrayElement(env, all, 1, (*env)->ToReflectedMethod(env, base, init, JNI_FALSE));
  (*env)->SetObjectArrayElement(env, all, 2, (*env)->ToReflectedField(env, base, number, JNI_FALSE));
  (*env)->SetObjectArrayElement(env, all, 3, (*env)->ToReflectedField(env, base, shared, JNI_TRUE));
  return all;
}

JNIEXPORT void JNICALL Java_Jni_buffers(JNIEnv *env, jclass self, jobject direct, jobject heap, jobject view) {
  jbyte *address = (*env)->GetDirectBufferAddress(env, direct);
  SAY("direct %d %ld", address[0], (long)(*env)->GetDirectBufferCapacity(env, direct));
  SAY("heap %d %ld", (*env)->GetDirectBufferAddress(env, heap) == NULL, (long)(*env)->GetDirectBufferCapacity(env, heap));
  SAY("view %d %ld", (*env)->GetDirectBufferAddress(env, view) != NULL, (long)(*env)->GetDirectBufferCapacity(env, view));
  static char memory[16] = "memory";
  jobject made = (*env)->NewDirectByteBuffer(env, memory, sizeof memory);
  jmethodID get = (*env)->GetMethodID(env, (*env)->GetObjectClass(env, made), "get", "(I)B");
  SAY("made %c %d %ld", (*env)->CallByteMethod(env, made, get, 2), (*env)->GetDirectBufferAddress(env, made) == memory, (long)(*env)->GetDirectBufferCapacity(env, made));
}

JNIEXPORT void JNICALL Java_Jni_monitors(JNIEnv *env, jclass self, jobject lock) {
  jclass thread = (*env)->FindClass(env, "java/lang/Thread");
  jmethodID holds = (*env)->GetStaticMethodID(env, thread, "holdsLock", "(Ljava/lang/Object;)Z");
  jint entered = (*env)->MonitorEnter(env, lock);
  jint held = (*env)->CallStaticBooleanMethod(env, thread, holds, lock);
  SAY("monitor %d %d %d", entered, held, (*env)->MonitorExit(env, lock));
}

JNIEXPORT jclass JNICALL Java_Jni_find(JNIEnv *env, jclass self, jstring name) {
  const char *text = (*env)->GetStringUTFChars(env, name, NULL);
  jclass found = (*env)->FindClass(env, text);
  (*env)->ReleaseStringUTFChars(env, name, text);
  return found;
}

JNIEXPORT jclass JNICALL Java_Jni_define(JNIEnv *env, jclass self, jstring name, jobject loader, jbyteArray bytes) {
  const char *text = (*env)->GetStringUTFChars(env, name, NULL);
  jbyte *elements = (*env)->GetByteArrayElements(env, bytes, NULL);
  jclass made = (*env)->DefineClass(env, text, loader, elements, (*env)->GetArrayLength(env, bytes));
  (*env)->ReleaseByteArrayElements(env, bytes, elements, JNI_ABORT);
  (*env)->ReleaseStringUTFChars(env, name, text);
  return made;
}

static jint doubled(JNIEnv *env, jclass self, jint value) { return value * 2; }

JNIEXPORT jint JNICALL Java_Jni_register(JNIEnv *env, jclass self, jclass type, jstring name, jstring signature) {
  const char *n = (*env)->GetStringUTFChars(env, name, NULL), *s = (*env)->GetStringUTFChars(env, signature, NULL);
  JNINativeMethod method = {(char *)n, (char *)s, doubled};
  jint result = (*env)->RegisterNatives(env, type, &method, 1);
  (*env)->ReleaseStringUTFChars(env, name, n);
  (*env)->ReleaseStringUTFChars(env, signature, s);
  return result;
}

JNIEXPORT void JNICALL Java_Jni_unregister(JNIEnv *env, jclass self, jclass type) { SAY("unregister %d", (*env)->UnregisterNatives(env, type)); }

struct work { jobject runnable; jboolean daemon; int number; };

static void *body(void *argument) {
  struct work *work = argument;
  JNIEnv *env, *again;
  char name[16];
  snprintf(name, sizeof name, "native%d", work->number);
  JavaVMAttachArgs arguments = {JNI_VERSION_10, name, NULL};
  if ((*vm)->GetEnv(vm, (void **)&env, JNI_VERSION_10) != JNI_EDETACHED) abort();
  jint result = work->daemon ? (*vm)->AttachCurrentThreadAsDaemon(vm, (void **)&env, &arguments) : (*vm)->AttachCurrentThread(vm, (void **)&env, NULL);
  if (result != 0 || (*vm)->AttachCurrentThread(vm, (void **)&again, NULL) != 0 || again != env) abort();
  jmethodID run = (*env)->GetMethodID(env, (*env)->GetObjectClass(env, work->runnable), "run", "()V");
  (*env)->CallVoidMethod(env, work->runnable, run);
  if ((*vm)->DetachCurrentThread(vm) != 0) abort();
  return NULL;
}

JNIEXPORT void JNICALL Java_Jni_threads(JNIEnv *env, jclass self, jobject runnable, jint count, jboolean daemon) {
  pthread_t threads[64];
  struct work work[64];
  jobject global = (*env)->NewGlobalRef(env, runnable);
  for (int i = 0; i < count; i++) {
    work[i] = (struct work){global, daemon, i};
    pthread_create(&threads[i], NULL, body, &work[i]);
  }
  for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
  (*env)->DeleteGlobalRef(env, global);
  SAY("threads %d", (*vm)->DetachCurrentThread(vm));
}

JNIEXPORT jstring JNICALL Java_Jni_relations(JNIEnv *env, jclass self, jclass a, jclass b) {
  char text[64];
  jclass super = (*env)->GetSuperclass(env, a);
  snprintf(text, sizeof text, "[%d %d %d]", (*env)->IsAssignableFrom(env, a, b), super != NULL && (*env)->IsSameObject(env, super, b),
      (*env)->GetModule(env, a) != NULL);
  return (*env)->NewStringUTF(env, text);
}

JNIEXPORT jint JNICALL Java_Jni_recursion(JNIEnv *env, jclass self, jint depth) {
  jmethodID recurse = (*env)->GetStaticMethodID(env, self, "recurse", "(I)I");
  if (recurse == NULL) return 0;
  return (*env)->CallStaticIntMethod(env, self, recurse, depth);
}

struct stress { jclass type; int number, rounds; jlong sum; };

/* Makes, keeps and reads as much as a round has, on a thread of its own. */
static void *stressed(void *argument) {
  struct stress *stress = argument;
  JNIEnv *env;
  if ((*vm)->AttachCurrentThreadAsDaemon(vm, (void **)&env, NULL) != 0) abort();
  jclass object = (*env)->FindClass(env, "java/lang/Object");
  jmethodID mix = (*env)->GetStaticMethodID(env, stress->type, "mix", "([Ljava/lang/Object;I)J");
  jweak weak = NULL;
  for (int round = 0; round < stress->rounds; round++) {
    if ((*env)->PushLocalFrame(env, 64) != 0) abort();
    jobjectArray array = (*env)->NewObjectArray(env, 20, object, NULL);
    jobject global = (*env)->NewGlobalRef(env, array);
    for (int i = 0; i < 20; i++) {
      char text[32];
      snprintf(text, sizeof text, "%d-%d", stress->number, round * i);
      jstring string = (*env)->NewStringUTF(env, text);
      (*env)->SetObjectArrayElement(env, global, i, string);
      if (i % 3 == 0) (*env)->DeleteLocalRef(env, string);
    }
    jintArray ints = (*env)->NewIntArray(env, 100);
    jint *elements = (*env)->GetPrimitiveArrayCritical(env, ints, NULL);
    for (int i = 0; i < 100; i++) elements[i] = i * round;
    (*env)->ReleasePrimitiveArrayCritical(env, ints, elements, 0);
    jint last;
    (*env)->GetIntArrayRegion(env, ints, 99, 1, &last);
    stress->sum += (*env)->CallStaticLongMethod(env, stress->type, mix, global, last);
    if (weak) (*env)->DeleteWeakGlobalRef(env, weak);
    weak = (*env)->NewWeakGlobalRef(env, array);
    (*env)->DeleteGlobalRef(env, global);
    (*env)->PopLocalFrame(env, NULL);
  }
  if (weak) (*env)->DeleteWeakGlobalRef(env, weak);
  if ((*vm)->DetachCurrentThread(vm) != 0) abort();
  return NULL;
}

JNIEXPORT jlong JNICALL Java_Jni_stress(JNIEnv *env, jclass self, jclass type, jint count, jint rounds) {
  pthread_t threads[64];
  struct stress work[64];
  jclass global = (*env)->NewGlobalRef(env, type);
  jlong sum = 0;
  for (int i = 0; i < count; i++) {
    work[i] = (struct stress){global, i, rounds, 0};
    pthread_create(&threads[i], NULL, stressed, &work[i]);
  }
  for (int i = 0; i < count; i++) {
    pthread_join(threads[i], NULL);
    sum = sum * 31 + work[i].sum;
  }
  (*env)->DeleteGlobalRef(env, global);
  return sum;
}
