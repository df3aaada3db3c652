"""Video, audio, pictures and faces, in and out."""
