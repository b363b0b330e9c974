/* Offsets and values as CPython's own, internal headers have them. */
#define Py_BUILD_CORE 1
#define NDEBUG 1
#include <Python.h>
#include <frameobject.h>

#include <string.h>

#if PY_VERSION_HEX >= 0x030b0000
#include "internal/pycore_dict.h"
#include "internal/pycore_frame.h"
#include "internal/pycore_interp.h"
#if PY_VERSION_HEX >= 0x030e0000
#include "internal/pycore_interpframe.h"
#endif
#include "internal/pycore_object.h"
#include "internal/pycore_pystate.h"
#include "internal/pycore_runtime.h"
#elif PY_VERSION_HEX >= 0x03090000
#include "internal/pycore_interp.h"
#include "internal/pycore_pystate.h"
#include "internal/pycore_runtime.h"
#else
#include "internal/pycore_pystate.h"
#endif

#include "layout_facts.h"

#define AT(type, field) ((uint32_t)offsetof(type, field))

typedef struct list {
    layout_fact *facts;
    size_t count, max;
} list;

static void add(list *facts, const char *name, uint32_t value) {
    if (facts->count < facts->max) {
        facts->facts[facts->count].name = name;
        facts->facts[facts->count].value = value;
    }
    facts->count++;
}

static void add_interpreter(list *facts) {
    add(facts, "interp_next", AT(PyInterpreterState, next));
#if PY_VERSION_HEX >= 0x030b0000
    add(facts, "interp_threads", AT(PyInterpreterState, threads.head));
#else
    add(facts, "interp_threads", AT(PyInterpreterState, tstate_head));
#endif
    add(facts, "interp_id", AT(PyInterpreterState, id));
}

static void add_status(list *facts) {
#if PY_VERSION_HEX >= 0x030d0000
    add(facts, "ts_status", AT(PyThreadState, state));
    add(facts, "status_mask", UINT32_MAX);
    add(facts, "status_attached", _Py_THREAD_ATTACHED);
#elif PY_VERSION_HEX >= 0x030c0000
    PyThreadState active;
    uint32_t mask;
    memset(&active, 0, sizeof active);
    active._status.active = 1;
    memcpy(&mask, &active._status, sizeof mask);
    add(facts, "ts_status", AT(PyThreadState, _status));
    add(facts, "status_mask", mask);
    add(facts, "status_attached", mask);
#else
    add(facts, "ts_status", FACT_ABSENT);
    add(facts, "status_mask", 0);
    add(facts, "status_attached", 0);
#endif
}

static void add_thread_state(list *facts) {
    add(facts, "ts_prev", AT(PyThreadState, prev));
    add(facts, "ts_next", AT(PyThreadState, next));
    add(facts, "ts_interp", AT(PyThreadState, interp));
    add(facts, "ts_id", AT(PyThreadState, id));
    add(facts, "ts_thread_id", AT(PyThreadState, thread_id));
    add_status(facts);
#if PY_VERSION_HEX >= 0x030b0000
    add(facts, "ts_native_id", AT(PyThreadState, native_thread_id));
#else
    add(facts, "ts_native_id", FACT_ABSENT);
#endif
#if PY_VERSION_HEX >= 0x030f0000
    add(facts, "ts_base", AT(PyThreadState, base_frame));
#else
    add(facts, "ts_base", FACT_ABSENT);
#endif
#if PY_VERSION_HEX >= 0x030d0000
    add(facts, "ts_frame", AT(PyThreadState, current_frame));
#elif PY_VERSION_HEX >= 0x030b0000
    add(facts, "ts_frame", AT(PyThreadState, cframe));
#else
    add(facts, "ts_frame", AT(PyThreadState, frame));
#endif
#if PY_VERSION_HEX >= 0x030b0000 && PY_VERSION_HEX < 0x030d0000
    add(facts, "ts_chunk", AT(PyThreadState, datastack_chunk));
    add(facts, "cframe_frame", AT(_PyCFrame, current_frame));
    add(facts, "cframe_previous", AT(_PyCFrame, previous));
#else
    add(facts, "ts_chunk", FACT_ABSENT);
    add(facts, "cframe_frame", FACT_ABSENT);
    add(facts, "cframe_previous", FACT_ABSENT);
#endif
}

static void add_frame(list *facts) {
#if PY_VERSION_HEX >= 0x030b0000
    add(facts, "frame_previous", AT(_PyInterpreterFrame, previous));
    add(facts, "frame_owner", AT(_PyInterpreterFrame, owner));
    add(facts, "frame_locals", AT(_PyInterpreterFrame, localsplus));
    add(facts, "frame_generator", FACT_ABSENT);
    add(facts, "frame_state", FACT_ABSENT);
    add(facts, "instr_scale", 0);
    add(facts, "owner_generator", FRAME_OWNED_BY_GENERATOR);
#else
    add(facts, "frame_previous", AT(PyFrameObject, f_back));
    add(facts, "frame_code", AT(PyFrameObject, f_code));
    add(facts, "frame_instr", AT(PyFrameObject, f_lasti));
    add(facts, "frame_owner", FACT_ABSENT);
    add(facts, "frame_locals", AT(PyFrameObject, f_localsplus));
    add(facts, "frame_generator", AT(PyFrameObject, f_gen));
#if PY_VERSION_HEX >= 0x030a0000
    add(facts, "frame_state", AT(PyFrameObject, f_state));
#else
    add(facts, "frame_state", AT(PyFrameObject, f_executing));
#endif
    add(facts, "instr_scale", PY_VERSION_HEX >= 0x030a0000 ? sizeof(_Py_CODEUNIT) : 1);
#endif
#if PY_VERSION_HEX >= 0x030d0000
    add(facts, "frame_code", AT(_PyInterpreterFrame, f_executable));
    add(facts, "frame_instr", AT(_PyInterpreterFrame, instr_ptr));
#elif PY_VERSION_HEX >= 0x030b0000
    add(facts, "frame_code", AT(_PyInterpreterFrame, f_code));
    add(facts, "frame_instr", AT(_PyInterpreterFrame, prev_instr));
#endif
#if PY_VERSION_HEX >= 0x030e0000
    add(facts, "owner_helper", FRAME_OWNED_BY_INTERPRETER);
#elif PY_VERSION_HEX >= 0x030c0000
    add(facts, "owner_helper", FRAME_OWNED_BY_CSTACK);
#else
    add(facts, "owner_helper", FACT_ABSENT);
#endif
#if PY_VERSION_HEX >= 0x030e0000 && defined(Py_GIL_DISABLED)
    add(facts, "frame_tlbc", AT(_PyInterpreterFrame, tlbc_index));
    add(facts, "code_tlbc", AT(PyCodeObject, co_tlbc));
    add(facts, "tlbc_entries", AT(_PyCodeArray, entries));
#else
    add(facts, "frame_tlbc", FACT_ABSENT);
    add(facts, "code_tlbc", FACT_ABSENT);
#endif
#if PY_VERSION_HEX >= 0x030d0000
    /* In 3.13 only free-threaded builds have tagged pointers; clearing the bits of others changes nothing. */
    add(facts, "executable_tags", 3);
#if defined(Py_TAG_BITS)
    add(facts, "tags_unknown", (uint32_t)(Py_TAG_BITS & ~(uintptr_t)3));
#elif defined(Py_TAG_DEFERRED)
    add(facts, "tags_unknown", (uint32_t)(Py_TAG_DEFERRED & ~(uintptr_t)3));
#endif
#else
    add(facts, "executable_tags", 0);
#endif
}

static void add_code(list *facts) {
    add(facts, "code_filename", AT(PyCodeObject, co_filename));
    add(facts, "code_first_line", AT(PyCodeObject, co_firstlineno));
#if PY_VERSION_HEX >= 0x030b0000
    add(facts, "code_name", AT(PyCodeObject, co_qualname));
    add(facts, "code_instructions", AT(PyCodeObject, co_code_adaptive));
    add(facts, "code_first_traceable", AT(PyCodeObject, _co_firsttraceable));
#else
    add(facts, "code_name", AT(PyCodeObject, co_name));
    add(facts, "code_instructions", FACT_ABSENT);
    add(facts, "code_first_traceable", FACT_ABSENT);
#endif
#if PY_VERSION_HEX >= 0x030a0000
    add(facts, "code_lines", AT(PyCodeObject, co_linetable));
#else
    add(facts, "code_lines", AT(PyCodeObject, co_lnotab));
#endif
}

/* To 3.10 the keys of a dict lie in a header that is not installed. */
static void add_dict(list *facts) {
#if PY_VERSION_HEX >= 0x030b0000
    static char memory[256];
    PyObject *object = (PyObject *)(void *)(memory + 128);
    add(facts, "keys_size", AT(struct _dictkeysobject, dk_indices));
    add(facts, "keys_log2_index_bytes", AT(struct _dictkeysobject, dk_log2_index_bytes));
    add(facts, "keys_kind", AT(struct _dictkeysobject, dk_kind));
    add(facts, "keys_count", AT(struct _dictkeysobject, dk_nentries));
    add(facts, "keys_kind_general", DICT_KEYS_GENERAL);
    add(facts, "general_entry_size", sizeof(PyDictKeyEntry));
    add(facts, "general_entry_key", AT(PyDictKeyEntry, me_key));
    add(facts, "text_entry_size", sizeof(PyDictUnicodeEntry));
    add(facts, "text_entry_key", AT(PyDictUnicodeEntry, me_key));
    add(facts, "values_offset", AT(PyDictValues, values));
    add(facts, "managed_dict_flag", Py_TPFLAGS_MANAGED_DICT);
#if PY_VERSION_HEX >= 0x030d0000
    add(facts, "managed_dict_before", (uint32_t)((char *)object - (char *)_PyObject_ManagedDictPointer(object)));
    PyTypeObject type;
    memset(&type, 0, sizeof type);
    type.tp_basicsize = sizeof(PyObject);
    object->ob_type = &type;
    add(facts, "inline_values_behind", (uint32_t)((char *)_PyObject_InlineValues(object) - (char *)object));
    add(facts, "values_valid", AT(PyDictValues, valid));
    add(facts, "inline_values_flag", Py_TPFLAGS_INLINE_VALUES);
#elif PY_VERSION_HEX >= 0x030c0000
    PyDictOrValues tagged;
    add(facts, "managed_dict_before", (uint32_t)((char *)object - (char *)_PyObject_DictOrValuesPointer(object)));
    _PyDictOrValues_SetValues(&tagged, (PyDictValues *)(void *)object);
    add(facts, "values_tag", (uint32_t)((uintptr_t)object - (uintptr_t)tagged.dict));
#else
    add(facts, "managed_dict_before", (uint32_t)((char *)object - (char *)_PyObject_ManagedDictPointer(object)));
    add(facts, "managed_values_before", (uint32_t)((char *)object - (char *)_PyObject_ValuesPointer(object)));
#endif
#else
    (void)facts;
#endif
}

size_t layout_facts(layout_fact *facts, size_t max) {
    list all = {facts, 0, max};
    add_interpreter(&all);
    add_thread_state(&all);
    add_frame(&all);
    add_code(&all);
    add_dict(&all);
    return all.count;
}

#if PY_VERSION_HEX >= 0x030e0000
void layout_description(void *description, size_t size) {
    static const _Py_DebugOffsets all = _Py_DebugOffsets_INIT("xdebugpy");
    memcpy(description, &all, size < sizeof all ? size : sizeof all);
}
#endif
