/* The demo model as bytes of the executable: demo_model .. demo_model_end, aligned like a GGUF mapping. */
    .section .rodata
    .balign 4096
    .global demo_model
demo_model:
    .incbin "models/stories-q8_0.gguf"
    .global demo_model_end
demo_model_end:
    .section .note.GNU-stack, "", %progbits
