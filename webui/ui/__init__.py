"""The Gradio front end. The only room that knows Gradio."""
