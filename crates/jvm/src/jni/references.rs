//! References of C code: local, global, weak; frames of local ones.

use super::environment::{
    Boolean, ERROR, Env, Int, Kind, LocalFrame, OK, Object, get, kind, local, making, state, with_pending,
};
use crate::handle::{Global, Weak};

pub(super) extern "C" fn push_local_frame(env: Env, capacity: Int) -> Int {
    if capacity < 0 {
        return ERROR;
    }
    with_pending(env, |thread| {
        // SAFETY: the environment is this thread's.
        let state = unsafe { state(env) };
        state.outer.push(state.frame);
        state.frame = LocalFrame { handles: thread.handles.mark(), deleted: state.deleted.len() };
    });
    // The handles that are in use now stay so: they are below the frame.
    OK
}

pub(super) extern "C" fn pop_local_frame(env: Env, result: Object) -> Object {
    let mut object = std::ptr::null_mut();
    super::environment::outside_scope(env, |thread| {
        let result = get(result);
        // SAFETY: the environment is this thread's.
        let state = unsafe { state(env) };
        if let Some(outer) = state.outer.pop() {
            thread.handles.release(state.frame.handles);
            state.deleted.truncate(state.frame.deleted);
            state.frame = outer;
        }
        object = local(env, thread, result);
    });
    object
}

pub(super) extern "C" fn ensure_local_capacity(_: Env, capacity: Int) -> Int {
    if capacity < 0 { ERROR } else { OK }
}

pub(super) extern "C" fn new_local(env: Env, object: Object) -> Object {
    making(env, |_| Ok(get(object)))
}

pub(super) extern "C" fn delete_local(env: Env, object: Object) {
    if object.is_null() || kind(object) != Kind::Local {
        return;
    }
    with_pending(env, |thread| {
        if get(object).is_null() {
            return;
        }
        // SAFETY: the slot of a local reference, which only this thread and the collector write.
        unsafe { object.write(0) };
        // SAFETY: the environment is this thread's.
        let state = unsafe { state(env) };
        if let Some(index) = thread.handles.index_of(object)
            && index >= state.frame.handles
        {
            state.deleted.push(index);
        }
    });
}

pub(super) extern "C" fn is_same(env: Env, a: Object, b: Object) -> Boolean {
    with_pending(env, |_| Boolean::from(get(a) == get(b)))
}

pub(super) extern "C" fn new_global(env: Env, object: Object) -> Object {
    with_pending(env, |_| match get(object) {
        object if object.is_null() => std::ptr::null_mut(),
        object => Global::new(object).address(),
    })
}

pub(super) extern "C" fn delete_global(env: Env, object: Object) {
    if !object.is_null()
        && let Some(global) = Global::of_address(object)
    {
        with_pending(env, |_| global.release());
    }
}

pub(super) extern "C" fn new_weak(env: Env, object: Object) -> Object {
    with_pending(env, |_| match get(object) {
        object if object.is_null() => std::ptr::null_mut(),
        object => Weak::new(object).address(),
    })
}

pub(super) extern "C" fn delete_weak(env: Env, object: Object) {
    if !object.is_null()
        && let Some(weak) = Weak::of_address(object)
    {
        with_pending(env, |_| weak.release());
    }
}

pub(super) extern "C" fn reference_type(env: Env, object: Object) -> Int {
    with_pending(env, |_| match object {
        object if object.is_null() => 0,
        object if kind(object) != Kind::Weak && get(object).is_null() => 0,
        object => kind(object) as Int,
    })
}
