//! Classes and fields of the class library that the virtual machine itself uses, found when they are first asked for.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::arena::Meta;
use crate::loader;
use crate::metadata::Class;
use crate::symbol::Symbol;

macro_rules! classes {
    ($($function:ident $name:literal)*) => {$(
        #[doc = concat!("`", $name, "`")]
        #[inline]
        pub fn $function() -> Meta<Class> {
            static CLASS: AtomicU32 = AtomicU32::new(0);
            // SAFETY: 0 or the offset of a class.
            match unsafe { Meta::from_offset(CLASS.load(Ordering::Acquire)) } {
                Some(class) => class,
                None => {
                    let class = loader::boot_class($name);
                    CLASS.store(class.offset(), Ordering::Release);
                    class
                }
            }
        }
    )*};
}

macro_rules! fields {
    ($($function:ident $class:ident $name:literal $descriptor:literal)*) => {$(
        #[doc = concat!("Offset of the field `", $name, "` of [`", stringify!($class), "()`].")]
        #[inline]
        pub fn $function() -> u32 {
            static OFFSET: AtomicU32 = AtomicU32::new(0);
            match OFFSET.load(Ordering::Relaxed) {
                0 => {
                    let offset = field($class(), $name, $descriptor);
                    OFFSET.store(offset, Ordering::Relaxed);
                    offset
                }
                offset => offset,
            }
        }
    )*};
}

/// The offset of a field that the class library has.
///
/// # Panics
/// If it has not: then it is not the class library of JDK 17.
pub fn field(class: Meta<Class>, name: &str, descriptor: &str) -> u32 {
    let found = class.find_field(Symbol::new(name), Symbol::new(descriptor));
    let Some((_, field)) = found else { panic!("the class library of JDK 17 has {}.{name} {descriptor}", class.name) };
    field.offset
}

classes! {
    object "java/lang/Object"
    class "java/lang/Class"
    string "java/lang/String"
    cloneable "java/lang/Cloneable"
    serializable "java/io/Serializable"
    class_loader "java/lang/ClassLoader"
    thread "java/lang/Thread"
    thread_group "java/lang/ThreadGroup"
    throwable "java/lang/Throwable"
    error "java/lang/Error"
    module "java/lang/Module"
    system "java/lang/System"
    stack_trace_element "java/lang/StackTraceElement"
    reference "java/lang/ref/Reference"
    method_handle "java/lang/invoke/MethodHandle"
    var_handle "java/lang/invoke/VarHandle"
    method_type "java/lang/invoke/MethodType"
    member_name "java/lang/invoke/MemberName"
    resolved_method_name "java/lang/invoke/ResolvedMethodName"
    lambda_form "java/lang/invoke/LambdaForm"
    method_handle_natives "java/lang/invoke/MethodHandleNatives"
    call_site "java/lang/invoke/CallSite"
    reflect_method "java/lang/reflect/Method"
    reflect_constructor "java/lang/reflect/Constructor"
    reflect_field "java/lang/reflect/Field"
    boxed_boolean "java/lang/Boolean"
    boxed_character "java/lang/Character"
    boxed_float "java/lang/Float"
    boxed_double "java/lang/Double"
    boxed_byte "java/lang/Byte"
    boxed_short "java/lang/Short"
    boxed_integer "java/lang/Integer"
    boxed_long "java/lang/Long"
    class_not_found "java/lang/ClassNotFoundException"
}

fields! {
    class_metadata class "isomorph$class" "I"
    class_loader_of class "classLoader" "Ljava/lang/ClassLoader;"
    class_module class "module" "Ljava/lang/Module;"
    class_component class "componentType" "Ljava/lang/Class;"
    class_data class "classData" "Ljava/lang/Object;"
    class_protection_domain class "isomorph$protectionDomain" "Ljava/lang/Object;"
    class_signers class "isomorph$signers" "Ljava/lang/Object;"
    class_name class "name" "Ljava/lang/String;"
    class_initializer_error class "isomorph$error" "Ljava/lang/Object;"
    loader_data class_loader "isomorph$loader" "I"
    loader_name class_loader "name" "Ljava/lang/String;"
    loader_unnamed_module class_loader "unnamedModule" "Ljava/lang/Module;"
    string_value string "value" "[B"
    string_coder string "coder" "B"
    string_hash string "hash" "I"
    throwable_backtrace throwable "backtrace" "Ljava/lang/Object;"
    throwable_depth throwable "depth" "I"
    throwable_stack_trace throwable "stackTrace" "[Ljava/lang/StackTraceElement;"
    throwable_message throwable "detailMessage" "Ljava/lang/String;"
    throwable_cause throwable "cause" "Ljava/lang/Throwable;"
    thread_eetop thread "eetop" "J"
    thread_status thread "threadStatus" "I"
    thread_daemon thread "daemon" "Z"
    thread_group_of thread "group" "Ljava/lang/ThreadGroup;"
    thread_priority thread "priority" "I"
    thread_name thread "name" "Ljava/lang/String;"
    thread_access_context thread "inheritedAccessControlContext" "Ljava/security/AccessControlContext;"
    method_handle_form method_handle "form" "Ljava/lang/invoke/LambdaForm;"
    method_handle_type method_handle "type" "Ljava/lang/invoke/MethodType;"
    lambda_form_entry lambda_form "vmentry" "Ljava/lang/invoke/MemberName;"
    method_type_parameters method_type "ptypes" "[Ljava/lang/Class;"
    method_type_return method_type "rtype" "Ljava/lang/Class;"
    member_class member_name "clazz" "Ljava/lang/Class;"
    member_name_of member_name "name" "Ljava/lang/String;"
    member_type member_name "type" "Ljava/lang/Object;"
    member_flags member_name "flags" "I"
    member_method member_name "method" "Ljava/lang/invoke/ResolvedMethodName;"
    member_index member_name "isomorph$index" "J"
    resolved_holder resolved_method_name "isomorph$holder" "Ljava/lang/Object;"
    resolved_target resolved_method_name "isomorph$target" "I"
    call_site_target call_site "target" "Ljava/lang/invoke/MethodHandle;"
    method_class reflect_method "clazz" "Ljava/lang/Class;"
    method_slot reflect_method "slot" "I"
    constructor_class reflect_constructor "clazz" "Ljava/lang/Class;"
    constructor_slot reflect_constructor "slot" "I"
    field_class reflect_field "clazz" "Ljava/lang/Class;"
    field_slot reflect_field "slot" "I"
    reference_referent reference "referent" "Ljava/lang/Object;"
}

/// Fields that layout adds to classes of the library: class, name, descriptor.
pub const INJECTED: &[(&str, &str, &str)] = &[
    ("java/lang/Class", "isomorph$class", "I"),
    ("java/lang/Class", "isomorph$protectionDomain", "Ljava/lang/Object;"),
    ("java/lang/Class", "isomorph$signers", "Ljava/lang/Object;"),
    ("java/lang/Class", "isomorph$error", "Ljava/lang/Object;"),
    ("java/lang/ClassLoader", "isomorph$loader", "I"),
    ("java/lang/invoke/MemberName", "isomorph$index", "J"),
    ("java/lang/invoke/ResolvedMethodName", "isomorph$holder", "Ljava/lang/Object;"),
    ("java/lang/invoke/ResolvedMethodName", "isomorph$target", "I"),
];
